"""What a score owes to the kind of variant alone: mean and spread of the scores of random variants, by class.

Classes of single bases are the trinucleotide and the alternative, such as A[C>T]G: CpG sites mutate, and so score,
unlike others. Classes of insertions and deletions are their lengths. Where a score is the mean over both strands, a
class and its reverse complement are one, written with C or T in the middle, as mutational signatures are.

    calibrated = score - mean of its class (nats),    z = calibrated / standard deviation of its class
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dnagpt_fast.genome import Genome
from dnagpt_fast.json_files import read_json
from dnagpt_fast.model.alleles import AlleleRule, AlleleScore
from dnagpt_fast.model.haplotypes import NotScorable, Site, difference
from dnagpt_fast.model.network import Network
from dnagpt_fast.output_files import write_json
from dnagpt_fast.vocab import reverse_complement

FORMAT = 1
KINDS = ("SNV", "INS", "DEL")
LENGTHS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 10), (11, 20), (21, 50))
"""Shortest and longest indel of each class, in bases."""
LEAST = 30
"""A class with fewer examples is not used: its whole kind takes its place, with the flag KIND."""
FLAGS = {
    "KIND": f"calibrated with all variants of its kind ({', '.join(KINDS)}): its class has under {LEAST} examples",
    "UNCALIBRATED": "no calibrated score: several bases replaced, an indel over 50 bases or in a short tandem repeat, "
    "an N beside it, or too few examples of its kind",
}


class CalibrationError(ValueError):
    """A calibration file that is damaged, or of another model, genome or rule."""


@dataclass(frozen=True)
class Spread:
    """Of the scores of `count` random variants, in nats; sd has the divisor count - 1."""

    count: int
    mean: float
    sd: float

    @classmethod
    def of(cls, scores: list[float]) -> "Spread":
        """Raises ValueError for fewer than two scores."""
        if len(scores) < 2:
            raise ValueError(f"{len(scores)} score(s): wanted at least 2 for a standard deviation")
        mean = math.fsum(scores) / len(scores)
        return cls(
            len(scores), mean, math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / (len(scores) - 1))
        )


def class_of(site: Site, strands: int) -> tuple[str, str] | None:
    """(kind, class) of a variant, or None if it has no class. strands: those that its score is the mean of.

    >>> class_of(Site("AA", "C", "T", "GG"), 2), class_of(Site("CC", "G", "A", "TT"), 2)
    (('SNV', 'A[C>T]G'), ('SNV', 'A[C>T]G'))
    >>> class_of(Site("CC", "G", "A", "TT"), 1), class_of(Site("AA", "C", "CGATT", "GG"), 2)
    (('SNV', 'C[G>A]T'), ('INS', 'INS 4-5'))
    """
    try:
        found = difference(site)
    except NotScorable:
        return None
    if found is None:
        return None
    if found.indel:
        kind = "INS" if len(site.alternative) > len(site.reference) else "DEL"
        for shortest, longest in LENGTHS:
            if shortest <= found.longest <= longest:
                return kind, f"{kind} {shortest}" + (f"-{longest}" if longest > shortest else "")
        return None
    if found.longest > 1:
        return None
    before = (site.left + site.reference + site.right)[max(found.first - 1, 0) : found.first + 2]
    new = (site.left + site.alternative + site.right)[found.first]
    if len(before) < 3 or not set(before + new) <= set("ACGT"):
        return None
    if strands == 2 and before[1] in "AG":
        before, new = reverse_complement(before), reverse_complement(new)
    return "SNV", f"{before[0]}[{before[1]}>{new}]{before[2]}"


@dataclass(frozen=True)
class Calibration:
    """about: what the scores depend on, as `identity` gives it, and how the variants were drawn. classes: the spread of
    each class, and under the names of KINDS that of all variants of a kind."""

    about: dict[str, Any]
    classes: dict[str, Spread]

    @property
    def content_hash(self) -> str:
        """SHA-256 of all numbers."""
        text = json.dumps(self._tree(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def apply(self, site: Site, score: AlleleScore, strands: int) -> AlleleScore:
        """The score with its calibrated values, or with a flag that says why it has none."""
        if score.llr is None:
            return score
        found = None if "STR" in score.flags else class_of(site, strands)
        flags = score.flags
        spread = None if found is None else self._enough(found[1])
        if found is not None and spread is None:
            spread = self._enough(found[0])
            flags = (*flags, "KIND")
        if spread is None:
            return replace(score, flags=(*score.flags, "UNCALIBRATED"))
        calibrated = score.llr - spread.mean
        z = calibrated / spread.sd if spread.sd > 0 else None
        return replace(score, calibrated=calibrated, z=z, flags=flags)

    def _enough(self, name: str) -> Spread | None:
        spread = self.classes.get(name)
        return spread if spread is not None and spread.count >= LEAST else None

    def write(self, path: Path) -> None:
        write_json(path, self._tree())

    def _tree(self) -> dict[str, Any]:
        classes = {name: asdict(spread) for name, spread in sorted(self.classes.items())}
        return {"format": FORMAT, "about": self.about, "classes": classes}

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """Raises CalibrationError for a damaged file or another format, FileNotFoundError."""
        try:
            found = read_json(path)
        except ValueError as error:
            raise CalibrationError(f"{error}: wanted a file of `dnagpt-fast calibrate`") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise CalibrationError(f"{path}: wanted a file of `dnagpt-fast calibrate`, format {FORMAT}")
        about, classes = found.get("about"), found.get("classes")
        if not isinstance(about, dict) or not isinstance(classes, dict):
            raise CalibrationError(f"{path}: 'about' or 'classes' is missing: the file is damaged")
        return cls(about, {str(name): _spread(path, name, entry) for name, entry in classes.items()})

    def check(self, path: Path | str, about: dict[str, Any]) -> None:
        """Raises CalibrationError, which names every difference, unless it was made for this model, genome and rule."""
        changed = [key for key in about if self.about.get(key) != about[key]]
        if changed:
            text = ", ".join(f"{key} was {self.about.get(key)}, is {about[key]}" for key in changed)
            raise CalibrationError(
                f"{path} was made for another job: {text}: make it anew with `dnagpt-fast calibrate`"
            )


def identity(model: Network, genome: Genome, rule: AlleleRule) -> dict[str, Any]:
    """What a score depends on, as JSON gives it back: the hashes of model and genome, and the rule."""
    return {"model": model.content_hash(), "genome": genome.content_hash(), "rule": _json(asdict(rule))}


def _spread(path: Path, name: str, entry: object) -> Spread:
    try:
        found = Spread(int(entry["count"]), float(entry["mean"]), float(entry["sd"]))  # type: ignore[index]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise CalibrationError(f"{path}: class {name!r} is damaged ({error!r})") from error
    if found.count < 2 or not math.isfinite(found.mean) or not 0 <= found.sd < math.inf:
        raise CalibrationError(f"{path}: class {name!r} is damaged: {found}")
    return found


def _json(value: object) -> object:
    """The value as it is after writing and reading JSON: tuples are lists."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, (list, tuple)) else value
