"""Suite mpra: saturation mutagenesis of regulatory elements (Kircher et al. 2019), by Spearman's rho per element."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dnagpt_fast.evaluation.baselines import choose_ridge
from dnagpt_fast.evaluation.row_counts import RegressionRows
from dnagpt_fast.evaluation.variant_baselines import by_class, changes, class_means, is_cpg_transition
from dnagpt_fast.finetune.data.examples import LabelError, parse_number
from dnagpt_fast.genome import Genome
from dnagpt_fast.input_files import parse_integer, text_lines
from dnagpt_fast.model.haplotypes import LEAST_BP
from dnagpt_fast.suites.scored import CPG, TABLE
from dnagpt_fast.suites.subjects import Subject, Variant
from dnagpt_fast.suites.task import FROZEN, LIKELIHOOD, Prediction, Scorer, Source, Task

NAME = "mpra"
ABOUT = "effects of substitutions measured by MPRA: Spearman's rho"
LAYOUT = "DIR/elements.tsv of MPRA_SaturationMutagenesis, with its columns Chrom Pos Ref Alt Barcodes Coefficient ..."
COLUMNS = ("Chrom", "Pos", "Ref", "Alt", "Barcodes", "Coefficient", "Element", "Release")
RELEASE = "GRCh37"
LEAST_BARCODES = 10
DEV_SHARE = 0.25


@dataclass(frozen=True)
class Element:
    """A promoter or enhancer: its bases, its contig and thousand bases, and the measured (place in it, alternative,
    effect)."""

    name: str
    bases: str
    where: tuple[str, int]
    effects: list[tuple[int, str, float]]


def tasks(source: Source) -> Iterator[Task]:
    (path,) = source.tables(".tsv")[:1]
    elements = read_elements(source.read(path), LEAST_BARCODES)
    data = _Rows(elements, source)
    for name, sign in (("effect", 1), ("size", 0)):
        if source.wants(name):
            yield data.task(name, signed=bool(sign))


def read_elements(path: Path, least_barcodes: int) -> list[Element]:
    """Every base of an element was changed, so that the column Ref spells it. Raises LabelError with file and line."""
    bases: dict[str, dict[int, str]] = {}
    effects: dict[str, list[tuple[int, str, float]]] = {}
    contig: dict[str, str] = {}
    lines = ((number, line) for number, line in text_lines(path))
    header = next(lines, (1, ""))[1].rstrip("\r\n").split("\t")
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise LabelError(f"{path}:1: no column {missing[0]!r}; the columns are {', '.join(header)}")
    for number, line in lines:
        fields = line.rstrip("\r\n").split("\t")
        if fields == [""]:
            continue
        if len(fields) != len(header):
            raise LabelError(f"{path}:{number}: {len(fields)} fields, the header has {len(header)}")
        row = dict(zip(header, fields, strict=True))
        if row["Release"] != RELEASE or row["Pos"] in ("", "NA") or row["Ref"] not in tuple("ACGT"):
            continue
        where = f"{path}:{number}"
        name, position = row["Element"], parse_integer(row["Pos"].removesuffix(".0"), where, "Pos")
        contig[name] = row["Chrom"]
        known = bases.setdefault(name, {})
        if known.setdefault(position, row["Ref"]) != row["Ref"]:
            raise LabelError(
                f"{where}: Ref is {row['Ref']!r}, but a line before has {known[position]!r} there"
            )
        barcodes = parse_number(row["Barcodes"], where, "Barcodes")
        if row["Alt"] in tuple("ACGT") and barcodes >= least_barcodes:
            effects.setdefault(name, []).append(
                (position, row["Alt"], parse_number(row["Coefficient"], where, "Coefficient"))
            )
    found = []
    for name, known in sorted(bases.items()):
        first, last = min(known), max(known)
        text = "".join(known.get(position, "N") for position in range(first, last + 1))
        measured = sorted(
            {(p - first, alternative): e for p, alternative, e in effects.get(name, [])}.items()
        )
        rows = [(p, alternative, effect) for (p, alternative), effect in measured]
        # constructs of one place, such as both directions of SORT1, are one cluster
        found.append(Element(name, text, (contig[name], first // 1000), rows))
    if not found:
        raise LabelError(f"{path}: no row of the release {RELEASE}")
    return found


class _Rows:
    """The drawn substitutions of all elements, in a genome of the elements."""

    def __init__(self, elements: Sequence[Element], source: Source) -> None:
        self.elements = [element for element in elements if len(element.bases) > 3 * LEAST_BP]
        self.variants: list[Variant] = []
        effects: list[float] = []
        of: list[int] = []
        for number, element in enumerate(self.elements):
            # with fewer bases beside it a variant has no score
            inside = [
                row for row in element.effects if LEAST_BP <= row[0] < len(element.bases) - LEAST_BP - 6
            ]
            for i in source.some(len(inside), element.name):
                place, alternative, effect = inside[i]
                self.variants.append((element.name, place, element.bases[place], alternative))
                effects.append(effect)
                of.append(number)
        self.effect, self.of = np.array(effects), np.array(of)
        keys = [f"{contig}:{place}" for contig, place in (element.where for element in self.elements)]
        self.place = np.unique(keys, return_inverse=True)[1]
        with tempfile.TemporaryDirectory() as folder:
            fasta = Path(folder) / "elements.fa"
            fasta.write_text("".join(f">{one.name}\n{one.bases}\n" for one in self.elements))
            self.genome = Genome.open(fasta)
        self.change = changes(self.genome, self.variants)
        self._scores: dict[str, np.ndarray] = {}

    def task(self, name: str, *, signed: bool) -> Task:
        truth = self.effect if signed else np.abs(self.effect)
        flag = np.array([is_cpg_transition(one) for one in self.change]).astype(float)

        def of_model(subject: Subject) -> Prediction:
            values = self._of_model(subject)
            return Prediction([values if signed else np.abs(values)])

        return Task(
            name=name,
            measure="spearman",
            rising=True,
            rows=len(truth),
            scorer=lambda values: self._scorer(truth, values),
            baselines={
                "chance": lambda: Prediction([np.zeros(len(truth))]),
                CPG: lambda: Prediction([-flag if signed else flag]),
                TABLE: lambda: Prediction([self._other_places(self._table(truth))]),
            },
            ways={LIKELIHOOD: of_model, FROZEN: lambda subject: self._frozen(subject, truth)},
            clusters=self.place[self.of],
            facts={"elements": len(self.elements), "places": len(set(self.place.tolist()))},
            texts=[(element.bases, f"element {element.name}") for element in self.elements],
        )

    def _of_model(self, subject: Subject) -> np.ndarray:
        if subject.name not in self._scores:
            self._scores[subject.name] = np.nan_to_num(subject.variant_scores(self.genome, self.variants))
        return self._scores[subject.name]

    def _scorer(self, truth: np.ndarray, values: np.ndarray) -> Scorer:
        """Mean over the elements of the rho of each; resamples have all rows of an element equally often."""
        rho = {}
        for number, element in enumerate(self.elements):
            mine = np.nonzero(self.of == number)[0]
            scored = RegressionRows(truth[mine], values[mine])
            rho[element.name] = scored(np.arange(len(mine)))["spearman"]
        each = np.array(list(rho.values()))

        def scores(rows: np.ndarray) -> dict[str, float]:
            share = np.bincount(self.of[rows], minlength=len(each)) / np.bincount(
                self.of, minlength=len(each)
            )
            mean = float((share * each).sum() / share.sum())
            return {"spearman": mean, **{f"spearman: {name}": value for name, value in rho.items()}}

        return scores

    def _other_places(self, predict: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """(rows of the other places, rows of a place) -> predictions; together for all places."""
        found = np.zeros(len(self.of))
        place = self.place[self.of]
        for one in np.unique(place):
            mine = np.nonzero(place == one)[0]
            found[mine] = predict(np.nonzero(place != one)[0], mine)
        return found

    def _table(self, truth: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        def predict(others: np.ndarray, mine: np.ndarray) -> np.ndarray:
            means = class_means([self.change[i] for i in others], truth[others])
            return by_class([self.change[i] for i in mine], means)

        return predict

    def _frozen(self, subject: Subject, truth: np.ndarray) -> Prediction:
        """Ridge on the vector of the changed element minus that of the element, fitted on the other places; layer and
        penalty by the squared error on some of these."""
        whole = subject.vectors([element.bases for element in self.elements])
        changed = []
        for (_, place, _, alternative), number in zip(self.variants, self.of.tolist(), strict=True):
            text = self.elements[number].bases
            changed.append(text[:place] + alternative + text[place + 1 :])
        difference = subject.vectors(changed) - whole[self.of]
        place = self.place[self.of]
        layers: list[int] = []

        def predict(others: np.ndarray, mine: np.ndarray) -> np.ndarray:
            known = np.unique(place[others])
            dev = np.isin(place[others], known[:: round(1 / DEV_SHARE)])
            train, checked = others[~dev], others[dev]
            best = None
            for layer in range(subject.layers):
                of_layer = difference[:, layer]
                found = choose_ridge(of_layer[train], truth[train], of_layer[checked], truth[checked])
                if best is None or found.loss < best[1].loss:
                    best = layer, found
            assert best is not None
            layers.append(best[0])
            return best[1].predict(difference[mine, best[0]])

        values = self._other_places(predict)
        return Prediction([values], {"layers": " ".join(map(str, sorted(set(layers))))})
