"""Tasks that ask a model for likelihoods and train nothing: differences between texts, and variants of a genome."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dnagpt_fast.evaluation.chains import Chains, fit_chains
from dnagpt_fast.evaluation.markov import text_codes
from dnagpt_fast.evaluation.row_counts import RankedScores
from dnagpt_fast.evaluation.variant_baselines import (
    by_class,
    chain_scores,
    changes,
    class_means,
    is_cpg_transition,
)
from dnagpt_fast.finetune.data.examples import LabelError, Loci
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.intervals import Intervals
from dnagpt_fast.genome.selection import Place
from dnagpt_fast.suites.subjects import Subject, Variant
from dnagpt_fast.suites.task import LIKELIHOOD, Prediction, Scorer, Source, Task

CHAIN_BP = 20_000_000
FOLDS = 5
SHOWN = 200
"""Texts that a model is asked about before any work."""
LEAST_OF_CLASS = 10
"""Of each label, for the AUROC within a consequence class."""
CPG = "CpG transition"
TABLE = "trinucleotide table"
CHAIN = "best Markov chain"
BEST = 2
"""Its number among the three chains."""


class FittedChains:
    """The Markov chains of a genome outside some ranges, fitted when they are first needed."""

    def __init__(self, genome: Genome, held_out: Sequence[Place]) -> None:
        self._genome = genome
        self._held_out = Intervals(
            np.array([genome.contigs.find(place.contig) for place in held_out], np.int64),
            np.array([place.start_bp for place in held_out], np.int64),
            np.array([place.end_bp for place in held_out], np.int64),
        )
        self._fitted: Chains | None = None

    def __call__(self) -> Chains:
        if self._fitted is None:
            self._fitted = fit_chains([self._genome.arrays], [self._held_out], CHAIN_BP)
        return self._fitted

    def chosen(self, number: int = BEST) -> dict[str, Any]:
        """Order and pseudo-count, where the chain was chosen; number: as in `log_likelihoods`."""
        return {"order": self().best_order, "pseudo": self().best_pseudo} if number == BEST else {}

    def log_likelihoods(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (3, n): nats of each text by order 2, order 5 and the best chain; its own strand only."""
        chains = self()
        return np.array([chains.log_probs(text_codes(text)).sum(1) for text in texts]).reshape(-1, 3).T


def difference_task(
    name: str,
    rows: Sequence[Sequence[str]],
    signs: Sequence[int],
    chains: FittedChains,
    places: Sequence[Place],
    block_bp: int,
    facts: Mapping[str, Any],
) -> Task:
    """Of each row the sum of sign * log P(text): a model is right where it is positive.

    rows: the texts of each row, as many as signs. places: of the rows, for clusters of block_bp.
    """
    texts = [text for row in rows for text in row]

    def value(nats: np.ndarray) -> np.ndarray:
        return nats.reshape(len(rows), len(signs)) @ np.array(signs, np.float64)

    def of_chain(number: int) -> Prediction:
        found = value(chains.log_likelihoods(texts)[number])
        found[np.abs(found) < 1e-9] = 0.0
        return Prediction([found], chains.chosen(number))

    return Task(
        name=name,
        measure="pair_accuracy",
        rising=True,
        rows=len(rows),
        scorer=pair_scorer,
        baselines={
            "chance": lambda: Prediction([np.zeros(len(rows))]),
            "Markov chain of order 2": lambda: of_chain(0),
            CHAIN: lambda: of_chain(BEST),
        },
        ways={LIKELIHOOD: lambda subject: Prediction([value(subject.log_likelihoods(texts)[:, 0])])},
        clusters=blocks(places, block_bp),
        facts=dict(facts),
        texts=[
            (text, f"{name}: {place.name}") for row, place in zip(rows, places, strict=True) for text in row
        ][:SHOWN],
        loci=loci(places),
    )


def pair_scorer(values: np.ndarray) -> Scorer:
    """pair_accuracy: the share of rows above 0, rows at 0 count half; mean_difference in nats."""
    right = (values > 0) + 0.5 * (values == 0)

    def scores(rows: np.ndarray) -> dict[str, float]:
        return {"pair_accuracy": float(right[rows].mean()), "mean_difference": float(values[rows].mean())}

    return scores


def variant_task(
    name: str,
    genome: Genome,
    variants: Sequence[Variant],
    truth: np.ndarray,
    clusters: np.ndarray,
    chains: FittedChains,
    facts: Mapping[str, Any],
    consequence: Sequence[str] | None = None,
) -> Task:
    """Variants with a label: AUROC and AUPRC of minus the log-ratio for class 1.

    consequence: the class of each variant; AUROC is also given within each class that has enough of both labels.
    """
    single = np.array([len(ref) == len(alt) == 1 for _, _, ref, alt in variants])

    def of_model(subject: Subject) -> Prediction:
        found = subject.variant_scores(genome, variants)
        missing = int(np.isnan(found).sum())
        return Prediction([-np.nan_to_num(found)], {"without a score": missing})

    baselines: dict[str, Callable[[], Prediction]] = {"chance": lambda: Prediction([np.zeros(len(variants))])}
    if single.all():
        change = changes(genome, list(variants))
        flag = np.array([is_cpg_transition(one) for one in change]).astype(float)
        baselines[CPG] = lambda: Prediction([cross_fitted(flag, truth, clusters)])
        baselines[TABLE] = lambda: Prediction([cross_fitted(change, truth, clusters)])
        baselines[CHAIN] = lambda: Prediction(
            [-chain_scores(chains(), genome, list(variants))], chains.chosen()
        )
    return Task(
        name=name,
        measure="auroc",
        rising=True,
        rows=len(variants),
        scorer=lambda values: _ranked(truth, values, consequence),
        baselines=baselines,
        ways={LIKELIHOOD: of_model},
        clusters=clusters,
        strata=truth,
        facts=dict(facts),
        texts=_surroundings(genome, variants[:SHOWN]),
        loci=Loci(
            [contig for contig, *_ in variants],
            np.array([start for _, start, *_ in variants]),
            np.array([start + len(ref) for _, start, ref, _ in variants]),
            ["+"] * len(variants),
        ),
    )


def _surroundings(genome: Genome, variants: Sequence[Variant]) -> list[tuple[str, str]]:
    found = []
    for contig, start, reference, alternative in variants:
        place = f"{contig}:{start + 1}"
        text = genome.sequence(contig, max(start - 50, 0), start + len(reference))
        found += [(text, place), (text[: -len(reference)] + alternative, place)]
    return found


def _ranked(truth: np.ndarray, values: np.ndarray, consequence: Sequence[str] | None) -> Scorer:
    ranked = RankedScores(values, truth == 1)
    parts = {}
    for name in sorted(set(consequence or ())):
        mine = np.nonzero(np.array(consequence) == name)[0]
        if min(truth[mine].sum(), (1 - truth[mine]).sum()) >= LEAST_OF_CLASS:
            parts[f"auroc: {name}"] = mine, RankedScores(values[mine], truth[mine] == 1)

    def scores(rows: np.ndarray) -> dict[str, float]:
        count = np.bincount(rows, minlength=len(truth)).astype(np.float64)
        auroc, auprc = ranked.areas(count)
        found = {"auroc": auroc, "auprc": auprc}
        for name, (mine, of_class) in parts.items():
            both = len({int(label) for label in truth[mine][count[mine] > 0]}) == 2
            found[name] = of_class.areas(count[mine])[0] if both else 0.5
        return found

    return scores


def cross_fitted(kind: Sequence[Any] | np.ndarray, truth: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The share of class 1 among the variants of the same kind in the other folds, less that of all variants there.
    Whole clusters are in one fold."""
    names = [str(one) for one in kind]
    fold = np.unique(clusters, return_inverse=True)[1] % FOLDS
    found = np.zeros(len(truth))
    for number in range(FOLDS):
        mine = np.nonzero(fold == number)[0]
        others = np.nonzero(fold != number)[0]
        if len(mine) and len(others):
            means = class_means([names[i] for i in others], truth[others].astype(float))
            # less the mean of the other folds, which differs from fold to fold and would be mistaken for a signal
            found[mine] = by_class([names[i] for i in mine], means) - means[""]
    return found.round(12)


def blocks(places: Sequence[Place], block_bp: int) -> np.ndarray:
    """int (n,): the number of each place's block."""
    keys = [f"{place.contig}:{place.start_bp // block_bp}" for place in places]
    return np.unique(keys, return_inverse=True)[1]


def loci(places: Sequence[Place]) -> Loci:
    return Loci(
        [place.contig for place in places],
        np.array([place.start_bp for place in places]),
        np.array([place.end_bp for place in places]),
        [place.strand for place in places],
    )


def windows(source: Source, genome: Genome, ranges: Sequence[Place], size_bp: int, part: str) -> list[Place]:
    """Windows of size_bp without N inside the ranges, as many as --max-rows, drawn. Raises LabelError for none."""
    found = []
    for place in ranges:
        for start in range(place.start_bp, place.end_bp - size_bp + 1, size_bp):
            name = f"{place.contig}:{start}-{start + size_bp}"
            found.append(Place(name, place.contig, start, start + size_bp))
    clean = []
    for i in source.some(len(found), part):
        place = found[i]
        if "N" not in genome.sequence(place.contig, place.start_bp, place.end_bp):
            clean.append(place)
    if len(clean) < 2:
        raise LabelError(
            f"{source.data}: {len(clean)} windows of {size_bp:,} bases without N in its ranges: wanted 2 or more; give "
            f"longer ranges or a smaller --window-bp"
        )
    return clean
