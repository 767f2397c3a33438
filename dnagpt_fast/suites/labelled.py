"""A task of labelled sequences with training, dev and test rows: its checks, its baselines, and frozen models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dnagpt_fast.evaluation.baselines import ReadOut, choose_logistic, kmer_counts, position_features
from dnagpt_fast.evaluation.class_chains import ClassChains
from dnagpt_fast.evaluation.row_counts import ClassificationRows
from dnagpt_fast.finetune.data.examples import Examples, LabelError, find_classes
from dnagpt_fast.suites import checks
from dnagpt_fast.suites.subjects import Subject
from dnagpt_fast.suites.task import FROZEN, Prediction, Scorer, Source, Task

PARTS = ("train", "dev", "test")
PART_NAMES = {
    "train": "train", "training": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev",
    "test": "test",
}  # fmt: skip
KMERS = (3, 4, 5)
MOST_POSITION_BP = 1024
LENGTH_BINS = 20
DEV_SHARE = 0.1


@dataclass(frozen=True)
class LabelledRows:
    """The drawn rows of each part, and their classes as numbers."""

    sets: dict[str, Examples]
    classes: tuple[str, ...]
    truth: dict[str, np.ndarray]

    def texts(self, part: str) -> list[str]:
        return self.sets[part].sequence


def labelled_task(
    name: str,
    sets: Mapping[str, Examples],
    measure: str,
    source: Source,
    clusters: np.ndarray | None = None,
) -> Task:
    """measure: one of `ClassificationRows`. clusters: int, of the test rows before any are drawn.

    Raises LabelError for an empty part, for a label that the training rows do not have, and for a class that a part
    lacks.
    """
    classes = _classes(sets)
    drawn = {part: source.some(len(sets[part]), f"{name} {part}") for part in PARTS}
    rows = {part: sets[part].take(drawn[part]) for part in PARTS}
    truth = {part: _truth(rows[part], classes, part) for part in PARTS}
    data = LabelledRows(rows, classes, truth)
    counts, said = checks.leaks(rows)
    said += checks.overlaps(rows)
    facts: dict[str, Any] = {"classes": list(classes), **checks.describe(rows), "leaks": counts}
    for part in PARTS:
        if len(rows[part]) < len(sets[part]):
            facts[part]["drawn_from"] = len(sets[part])
    baselines: dict[str, Callable[[], Prediction]] = {
        "majority class": lambda: _majority(data),
        "k-mer logistic regression": lambda: _kmers(data),
        "Markov chains": lambda: _chains(data, measure),
    }
    lengths = {len(text) for part in PARTS for text in rows[part].sequence}
    if len(lengths) > 1:
        baselines["length"] = lambda: _lengths(data)
    if len(lengths) == 1 and max(lengths) <= MOST_POSITION_BP:
        baselines["positional logistic regression"] = lambda: _positions(data)
    else:
        said.append(
            f"no positional logistic regression: it needs one length of at most {MOST_POSITION_BP:,} bases, the "
            f"sequences have {min(lengths):,} to {max(lengths):,}"
        )
    return Task(
        name=name,
        measure=measure,
        rising=True,
        rows=len(rows["test"]),
        scorer=lambda values: _scorer(truth["test"], values),
        baselines=baselines,
        ways={FROZEN: lambda subject: _frozen(data, subject)},
        clusters=None if clusters is None else clusters[drawn["test"]],
        strata=truth["test"],
        facts=facts,
        findings=[*said, *checks.balance(rows)],
        texts=_samples(rows),
        examples=rows,
        loci=rows["test"].loci,
    )


def _classes(sets: Mapping[str, Examples]) -> tuple[str, ...]:
    train = sets["train"]
    labels = train.label or []
    if len(set(labels)) == 1:
        raise LabelError(
            f"{train.where[0]}: this label, {labels[0]!r}, is that of all {len(labels):,} training rows: wanted two "
            f"classes or more"
        )
    return find_classes(train)


def _truth(rows: Examples, classes: tuple[str, ...], part: str) -> np.ndarray:
    place = {name: i for i, name in enumerate(classes)}
    for text, where in zip(rows.label or (), rows.where, strict=True):
        if text not in place:
            raise LabelError(
                f"{where}: label {text!r} is not one of the training rows' classes {', '.join(classes)}: correct "
                f"the row, or leave it out"
            )
    found = np.array([place[text] for text in rows.label or ()], np.int64)
    counts = np.bincount(found, minlength=len(classes))
    if (counts == 0).any():
        raise LabelError(
            f"{rows.where[0]}: the {len(rows):,} {part} rows from here have no row of class "
            f"{classes[int(np.argmin(counts))]!r}: wanted rows of each of {', '.join(classes)}"
        )
    return found


def _samples(rows: Mapping[str, Examples]) -> list[tuple[str, str]]:
    """The shortest sequence of each part, and the first with each letter."""
    found = []
    for part in rows.values():
        shortest = min(range(len(part)), key=lambda i: len(part.sequence[i]))
        chosen = {shortest}
        for letter in "ACGTN":
            first = next((i for i, text in enumerate(part.sequence) if letter in text), None)
            if first is not None:
                chosen.add(first)
        found += [(part.sequence[i], part.where[i]) for i in sorted(chosen)]
    return found


def _scorer(truth: np.ndarray, values: np.ndarray) -> Scorer:
    return ClassificationRows(truth, values, 1 if values.shape[1] == 2 else None)


# Baselines


def _majority(data: LabelledRows) -> Prediction:
    share = np.bincount(data.truth["train"]) / len(data.truth["train"])
    return Prediction([np.tile(share, (len(data.truth["test"]), 1))])


def _best(
    data: LabelledRows, features: Mapping[Any, Callable[[str], np.ndarray]]
) -> tuple[Any, ReadOut, np.ndarray]:
    """Of several features, name -> (part -> (n, F)), the ones whose read-out has the lowest log loss on the dev rows:
    their name, their read-out and their predictions."""
    best: tuple[Any, ReadOut, np.ndarray] | None = None
    for name, of in features.items():
        found = choose_logistic(of("train"), data.truth["train"], of("dev"), data.truth["dev"])
        if best is None or found.loss < best[1].loss:
            best = name, found, found.predict(of("test"))
    assert best is not None
    return best


def _kmers(data: LabelledRows) -> Prediction:
    k, found, values = _best(data, {k: partial(_kmer_features, data, k) for k in KMERS})
    return Prediction([values], {"k": k, "penalty": found.penalty, "dev_loss": found.loss})


def _kmer_features(data: LabelledRows, k: int, part: str) -> np.ndarray:
    return kmer_counts(data.texts(part), k)


def _positions(data: LabelledRows) -> Prediction:
    _, found, values = _best(data, {"": lambda part: position_features(data.texts(part))})
    return Prediction([values], {"penalty": found.penalty, "dev_loss": found.loss})


def _lengths(data: LabelledRows) -> Prediction:
    """Of sequences of several lengths: what the length alone says, as the bin of LENGTH_BINS that it falls into."""
    edges = np.quantile([len(text) for text in data.texts("train")], np.arange(1, LENGTH_BINS) / LENGTH_BINS)

    def bins(part: str) -> np.ndarray:
        length = np.array([len(text) for text in data.texts(part)])
        place = np.searchsorted(np.unique(edges), length, "left")
        one_hot = place[:, None] == np.arange(len(edges) + 1)
        return np.column_stack([one_hot, np.log(length)]).astype(np.float32)

    _, found, values = _best(data, {"": bins})
    return Prediction([values], {"penalty": found.penalty, "dev_loss": found.loss})


def _chains(data: LabelledRows, measure: str) -> Prediction:
    chains = ClassChains(
        data.texts("train"),
        data.truth["train"],
        data.texts("dev"),
        data.truth["dev"],
        lambda truth, values: _scorer(truth, values)(np.arange(len(truth)))[measure],
    )
    return Prediction([chains.predict(data.texts("test"))], {"order": chains.order, "pseudo": chains.pseudo})


# Models


def _frozen(data: LabelledRows, subject: Subject) -> Prediction:
    vectors = {part: subject.vectors(data.texts(part)) for part in PARTS}
    layer, found, values = _best(
        data,
        {layer: partial(_of_layer, vectors, layer) for layer in range(subject.layers)},
    )
    return Prediction([values], {"layer": layer, "penalty": found.penalty, "dev_loss": found.loss})


def _of_layer(vectors: Mapping[str, np.ndarray], layer: int, part: str) -> np.ndarray:
    return vectors[part][:, layer]


# Splits


def with_dev(sets: Mapping[str, Examples], source: Source, block_bp: int = 0) -> dict[str, Examples]:
    """The parts with a dev part, which is DEV_SHARE of the training rows where there is none: whole blocks of the
    genome if block_bp is given, otherwise rows; equal sequences stay together."""
    if "dev" in sets:
        return dict(sets)
    train = sets["train"]
    keys: list[Any] = list(train.sequence)
    if block_bp and train.loci is not None:
        keys = [
            (contig, start // block_bp)
            for contig, start in zip(train.loci.contig, train.loci.start_bp.tolist(), strict=True)
        ]
    groups = sorted(set(keys))
    rng = np.random.Generator(np.random.Philox(source.seed))
    chosen, size = set(), 0
    for i in rng.permutation(len(groups)).tolist():
        if size >= DEV_SHARE * len(train):
            break
        chosen.add(groups[i])
        size += keys.count(groups[i]) if block_bp else 1
    is_dev = np.array([key in chosen for key in keys])
    return {
        "train": train.take(np.nonzero(~is_dev)[0]),
        "dev": train.take(np.nonzero(is_dev)[0]),
        "test": sets["test"],
    }


def parts_of_column(rows: Examples) -> dict[str, Examples]:
    """The parts by the file's split column. Raises LabelError without one, for another name in it, and for a missing
    part."""
    if rows.split is None:
        raise LabelError(
            f"{rows.path}: no column 'split': wanted one with train, test and, if there is one, dev"
        )
    found: dict[str, list[int]] = {}
    for i, text in enumerate(rows.split):
        part = PART_NAMES.get(text.lower())
        if part is None:
            raise LabelError(f"{rows.where[i]}: split {text!r}: wanted train, dev or test")
        found.setdefault(part, []).append(i)
    for part in ("train", "test"):
        if part not in found:
            raise LabelError(f"{rows.path}: no row of the split {part!r}: wanted train and test")
    return {part: rows.take(found[part]) for part in PARTS if part in found}


def random_parts(rows: Examples, shares: Sequence[float], seed: int) -> dict[str, Examples]:
    """The parts at random; equal sequences stay together."""
    texts = sorted(set(rows.sequence))
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(texts))
    ends = np.round(np.cumsum(shares) * len(texts))
    part = dict(zip(texts, np.searchsorted(ends, order, side="right").tolist(), strict=True))
    which = np.array([part[text] for text in rows.sequence])
    for number, name in enumerate(PARTS):
        if not (which == number).any():
            raise LabelError(f"{rows.path}: {len(rows)} rows are too few for a split; no row for {name}")
    return {name: rows.take(np.nonzero(which == number)[0]) for number, name in enumerate(PARTS)}
