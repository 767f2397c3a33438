"""Labelled sequences from any file: `Examples`, which keeps the place of each row for error messages."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from dnagpt_fast.input_files import InputFileError, bare, readable
from dnagpt_fast.vocab import LETTERS, to_bases

logger = logging.getLogger(__name__)

ON_LOWER_CASE = ("upper", "error")
ON_N = ("error", "drop", "keep")
ON_LONG = ("error", "crop_end", "crop_start", "crop_both", "window")


# Of one field: Python's own float takes `1_000` and other alphabets' digits too.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# "No value" in pandas, R, Excel and the BED format. `none` in lower case is a word, and a class in some data
# sets.
MISSING = frozenset(
    ("", ".", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-nan", "NULL", "null", "None")
)


class LabelError(InputFileError):
    """Labelled data that cannot be used; the message names the file, the line or record, the value and the
    remedy."""


@dataclass(frozen=True)
class Loci:
    """Positions of n examples: contig names, int64 [start_bp, end_bp) on the forward strand, strands `+` or
    `-`."""

    contig: list[str]
    start_bp: np.ndarray
    end_bp: np.ndarray
    strand: list[str]

    def take(self, index: np.ndarray) -> "Loci":
        return Loci(
            [self.contig[i] for i in index],
            self.start_bp[index],
            self.end_bp[index],
            [self.strand[i] for i in index],
        )


@dataclass(frozen=True)
class Examples:
    """n labelled sequences.

    path          the file
    where         n places in the file, such as `x.csv:12` or `x.fa: record 5 (name)`
    sequence      n texts over ACGTN, upper case, on their own strand
    label         n texts as in the file; None without labels (prediction)
    numbers       float64 (n, m), side inputs in the order of number_names
    split         n names of a split column; None without one
    loci          positions in a genome; None if the file does not have them
    name          n names as in the file: BED's name column, FASTA's id, a table's column `name` or `id`; None without
    parent        int64 (n,): rows that are windows of one sequence have the same number
    tags          tagging: n arrays int64 (k-mers,), classes numbered as in `evaluation.tag_scores.tag_names`;
                  otherwise None
    kinds         the kinds of features that the tags are for
    """

    path: Path
    where: list[str]
    sequence: list[str]
    label: list[str] | None
    numbers: np.ndarray
    number_names: tuple[str, ...] = ()
    split: list[str] | None = None
    loci: Loci | None = None
    name: list[str] | None = None
    parent: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    tags: list[np.ndarray] | None = None
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.parent) != len(self.sequence):
            object.__setattr__(self, "parent", np.arange(len(self.sequence)))

    def __len__(self) -> int:
        return len(self.sequence)

    def take(self, index: Sequence[int] | np.ndarray) -> "Examples":
        """The rows at these places, in this order."""
        at = np.asarray(index, np.int64)
        return replace(
            self,
            where=[self.where[i] for i in at],
            sequence=[self.sequence[i] for i in at],
            label=None if self.label is None else [self.label[i] for i in at],
            numbers=self.numbers[at],
            split=None if self.split is None else [self.split[i] for i in at],
            loci=None if self.loci is None else self.loci.take(at),
            name=None if self.name is None else [self.name[i] for i in at],
            parent=self.parent[at],
            tags=None if self.tags is None else [self.tags[i] for i in at],
        )


def clean_sequence(text: str, where: str, on_lower_case: str = "upper") -> tuple[str, int]:
    """(Upper-case text over ACGTN, count of IUPAC letters that became N). U is T.

    on_lower_case  "upper": soft-masked bases are read as bases; "error": they are refused
    Raises LabelError that names the place and the letter.
    """
    text = text.strip()
    if not text:
        raise LabelError(f"{where}: the sequence is empty: remove the row")
    if on_lower_case == "error" and text.upper() != text:
        at = next(i for i, letter in enumerate(text) if letter.islower())
        raise LabelError(
            f"{where}: base {at} is {text[at]!r}, lower case: set data.on_lower_case = 'upper' to read soft-masked "
            f"bases as bases"
        )
    foreign = set(text.upper()) - LETTERS
    if foreign:
        at = next(i for i, letter in enumerate(text) if letter.upper() in foreign or len(letter.upper()) > 1)
        raise LabelError(f"{where}: base {at} is {text[at]!r}: wanted letters of ACGTUN or IUPAC codes")
    return to_bases(text)


def clean_sequences(texts: Sequence[str], where: Sequence[str], on_lower_case: str = "upper") -> list[str]:
    """`clean_sequence` for every row; one warning counts the IUPAC letters that became N."""
    if on_lower_case not in ON_LOWER_CASE:
        raise ValueError(f"on_lower_case = {on_lower_case!r}: wanted one of {', '.join(ON_LOWER_CASE)}")
    pairs = [clean_sequence(text, place, on_lower_case) for text, place in zip(texts, where, strict=True)]
    changed = sum(count for _, count in pairs)
    if changed:
        logger.warning("%s: %d IUPAC letter(s) other than N were read as N", where[0].split(":")[0], changed)
    return [sequence for sequence, _ in pairs]


def parse_label(text: str, where: str, column: str) -> str:
    """A label without blanks at its ends. Raises LabelError for a missing label, InputFileError for bytes
    that are not UTF-8."""
    label = bare(text)
    if label in MISSING:
        raise LabelError(f"{where}: {column} is missing ({label!r}): give a label, or remove the row")
    return readable(label, where, column)


def parse_number(text: str, where: str, column: str) -> float:
    """A finite number. Raises LabelError naming place and column."""
    text = text.strip()
    value = float(text) if _NUMBER.fullmatch(text) else np.nan
    if np.isfinite(value):
        return value
    wanted = "a finite number" if text.lower().lstrip("+-") in ("nan", "inf", "infinity") else "a number"
    raise LabelError(f"{where}: {column} = {text!r}: wanted {wanted}; correct or remove the row")


def check_span(start_bp: int, end_bp: int, where: str) -> tuple[int, int]:
    """(start_bp, end_bp), unchanged. Raises LabelError unless 0 <= start < end."""
    if not 0 <= start_bp < end_bp:
        raise LabelError(f"{where}: [{start_bp}, {end_bp}): wanted 0 <= start < end, 0-based half-open")
    return start_bp, end_bp


def filter_n(examples: Examples, max_n_share: float, on_n: str) -> Examples:
    """Handles rows with more than max_n_share N: "error" (LabelError), "drop" (counted in a warning) or
    "keep"."""
    if on_n not in ON_N:
        raise ValueError(f"on_n = {on_n!r}: wanted one of {', '.join(ON_N)}")
    share = np.array([s.count("N") / len(s) for s in examples.sequence])
    many = share > max_n_share
    if on_n == "keep" or not many.any():
        return examples
    if on_n == "error":
        first = int(np.argmax(many))
        raise LabelError(
            f"{examples.where[first]}: {share[first]:.0%} of the bases are N, more than data.max_n_share = "
            f"{max_n_share:g} ({many.sum()} row(s) in total): set data.on_n = 'drop' or 'keep', or a larger share"
        )
    logger.warning("%s: dropped %d row(s) with more than %g N", examples.path, many.sum(), max_n_share)
    return examples.take(np.nonzero(~many)[0])


def fit_length(examples: Examples, longest_bp: int, on_long: str) -> Examples:
    """Handles sequences longer than the model takes.

    on_long  "error"; "crop_end", "crop_start", "crop_both": the part that is removed; "window": the sequence
             becomes several rows of at most longest_bp with the same `parent`, whose predictions are averaged
    Raises LabelError that names the first such row.
    """
    if on_long not in ON_LONG:
        raise ValueError(f"on_long = {on_long!r}: wanted one of {', '.join(ON_LONG)}")
    if longest_bp < 1:
        raise ValueError(
            f"the model's max_len leaves {longest_bp} bases beside the template: wanted 1 or more"
        )
    length = np.array([len(s) for s in examples.sequence])
    too_long = length > longest_bp
    if not too_long.any():
        return examples
    if on_long == "error":
        first = int(np.argmax(too_long))
        raise LabelError(
            f"{examples.where[first]}: {length[first]:,} bases; this model with this template takes {longest_bp:,} "
            f"({too_long.sum()} row(s) are longer): set data.on_long to crop_end, crop_start, crop_both or window"
        )
    if on_long == "window":
        row, start = [], []
        for i, bases in enumerate(length.tolist()):
            windows = -(-bases // longest_bp)
            # evenly spread, so that the last window is not short
            begins = np.linspace(0, bases - min(bases, longest_bp), windows).round().astype(int).tolist()
            row += [i] * windows
            start += begins
        windowed = examples.take(row)
        return replace(
            windowed,
            sequence=[s[b : b + longest_bp] for s, b in zip(windowed.sequence, start, strict=True)],
        )
    logger.warning("%s: %s of %d row(s) to %d bases", examples.path, on_long, too_long.sum(), longest_bp)
    cropped = []
    for s in examples.sequence:
        extra = max(0, len(s) - longest_bp)
        begin = {"crop_end": 0, "crop_start": extra, "crop_both": extra // 2}[on_long]
        cropped.append(s[begin : begin + longest_bp])
    return replace(examples, sequence=cropped)


def class_of(examples: Examples, classes: Sequence[str]) -> np.ndarray:
    """int64 (n,): the index of each label in `classes`. Raises LabelError for a label that is not one of
    them."""
    place = {name: i for i, name in enumerate(classes)}
    found = np.empty(len(examples), np.int64)
    for i, (text, where) in enumerate(zip(_labels(examples), examples.where, strict=True)):
        if text not in place:
            raise LabelError(
                f"{where}: label {text!r} is not one of the classes {', '.join(classes)}: correct the row, or add the "
                f"label to task.classes"
            )
        found[i] = place[text]
    return found


def find_classes(examples: Examples) -> tuple[str, ...]:
    """The labels that occur, sorted; numbers in numeric order. Raises LabelError with fewer than two."""
    found = sorted(set(_labels(examples)))
    alike = sorted(found, key=str.casefold)
    for one, other in pairwise(alike):
        if one.casefold() == other.casefold():
            logger.warning(
                "%s: labels %r and %r differ by case only: two classes?", examples.path, one, other
            )
    if all(text.lstrip("-").isdigit() for text in found):
        found.sort(key=int)
    if len(found) < 2:
        raise LabelError(
            f"{examples.path}: every label is {found[0]!r}: classification needs two classes or more"
        )
    return tuple(found)


def target_values(examples: Examples) -> np.ndarray:
    """float64 (n,): the labels as numbers. Raises LabelError for text, NaN or infinity."""
    labels = _labels(examples)
    return np.array([parse_number(t, w, "label") for t, w in zip(labels, examples.where, strict=True)])


def _labels(examples: Examples) -> list[str]:
    if examples.label is None:
        raise LabelError(f"{examples.path} has no labels: name the column in data.label_column")
    return examples.label
