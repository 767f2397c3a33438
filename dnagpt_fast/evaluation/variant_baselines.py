"""Scores of single-base variants that need no language model: a Markov chain, and the kind of change."""

from collections.abc import Mapping, Sequence

import numpy as np

from dnagpt_fast.evaluation.chains import Chains
from dnagpt_fast.evaluation.markov import text_codes
from dnagpt_fast.genome import Genome
from dnagpt_fast.vocab import reverse_complement

Variant = tuple[str, int, str, str]
"""contig, 0-based position, reference, alternative"""


def chain_scores(chains: Chains, genome: Genome, variants: Sequence[Variant]) -> np.ndarray:
    """float64 (n,): log P(alternative) - log P(reference) of the best chain, mean of both strands."""
    side = chains.best_order
    rows: list[np.ndarray] = []
    for contig, position, reference, alternative in variants:
        length = int(genome.lengths[genome.contigs.find(contig)])
        left = genome.sequence(contig, max(position - side, 0), position).rjust(side, "N")
        right = genome.sequence(contig, position + 1, min(position + 1 + side, length)).ljust(side, "N")
        for base in (alternative, reference):
            text = left + base + right
            rows += [text_codes("N" + text), text_codes("N" + reverse_complement(text))]
    logs = chains.chain.log_probs(np.concatenate(rows), chains.best_order, chains.best_pseudo)
    sums = logs.reshape(len(variants), 2, 2, -1).sum(-1).mean(-1)
    return sums[:, 0] - sums[:, 1]


def changes(genome: Genome, variants: Sequence[Variant]) -> list[str]:
    """The trinucleotide change, such as ACG>T, on the strand whose reference is C or T."""
    found = []
    for contig, position, reference, alternative in variants:
        length = int(genome.lengths[genome.contigs.find(contig)])
        around = genome.sequence(contig, max(position - 1, 0), min(position + 2, length)).rjust(3, "N")
        if reference in "AG":
            around, alternative = reverse_complement(around), reverse_complement(alternative)
        found.append(f"{around}>{alternative}")
    return found


def is_cpg_transition(change: str) -> bool:
    return change[1:] == "CG>T"


def class_means(change: Sequence[str], values: np.ndarray, pseudo: float = 10.0) -> dict[str, float]:
    """Mean of the values of each trinucleotide change; `pseudo` rows of the overall mean are added to each."""
    overall = float(values.mean())
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for name, value in zip(change, values, strict=True):
        sums[name] = sums.get(name, 0.0) + float(value)
        counts[name] = counts.get(name, 0) + 1
    found = {name: (sums[name] + pseudo * overall) / (counts[name] + pseudo) for name in sums}
    return {**found, "": overall}


def by_class(change: Sequence[str], means: Mapping[str, float]) -> np.ndarray:
    return np.array([means.get(name, means[""]) for name in change])


def without_change(change: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Values minus their mean over the tested variants of the same trinucleotide change; needs no labels."""
    return values - by_class(change, class_means(change, values))
