"""The Markov chains that a model is compared with: order 2, order 5, and the best one for the training
sequence.

The order and pseudo-count of the best chain are chosen on a part of the training sequence that is not counted
yet and that no report uses. Afterwards this part is counted too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dnagpt_fast.evaluation.markov import MarkovChain, base_codes, joined, spread
from dnagpt_fast.genome.intervals import Intervals, outside
from dnagpt_fast.packed import PackedGenome

SHORT_ORDER, USUAL_ORDER, HIGHEST_ORDER = 2, 5, 12
PSEUDOS = tuple(2.0**i for i in range(10))
FIT_MOST_BP = 50_000_000
CHOOSE_MOST_BP = 400_000
CHOOSE_SHARE = 0.1
# Largest table: this many entries per counted base.
ENTRIES_PER_BASE = 16


@dataclass(frozen=True)
class Chains:
    """chain: the counts. best_order, best_pseudo: the chosen ones. choosing_bp: the number of bases they were
    chosen on."""

    chain: MarkovChain
    best_order: int
    best_pseudo: float
    choosing_bp: int

    @classmethod
    def of(cls, chain: MarkovChain, choosing: Sequence[np.ndarray]) -> "Chains":
        """Chooses the order and pseudo-count with the highest likelihood of the sequences `choosing`, which
        are not counted yet; then counts both strands of them. Without any known base in `choosing`: the
        chain's own order and the smallest pseudo-count."""
        losses = np.zeros((len(PSEUDOS), chain.order + 1))
        for codes in joined(choosing):
            for loss, pseudo in zip(losses, PSEUDOS, strict=True):
                loss -= chain.log_probs_by_order(codes, pseudo).sum(axis=1)
        # Ties: the highest order, then the smallest pseudo-count.
        row, shorter = divmod(int(losses[:, ::-1].argmin()), losses.shape[1])
        chain.fit(strand for codes in choosing for strand in both_strands(codes))
        bases = sum(int((codes >= 0).sum()) for codes in choosing)
        return cls(chain, chain.order - shorter, PSEUDOS[row], bases)

    def log_probs(self, codes: np.ndarray) -> np.ndarray:
        """float64 (3, bp): log p of each base by order 2, order 5 and the best chain; 0 for unknown bases."""
        usual = self.chain.log_probs_by_order(codes)
        best = self.chain.log_probs(codes, self.best_order, self.best_pseudo)
        return np.stack([usual[min(SHORT_ORDER, self.chain.order)], usual[self.usual_order], best])

    @property
    def usual_order(self) -> int:
        return min(USUAL_ORDER, self.chain.order)


def fit_chains(
    genomes: Sequence[PackedGenome], held_out: Sequence[Intervals], most_bp: int = FIT_MOST_BP
) -> Chains:
    """Chains fitted on both strands of the sequence outside the held-out ranges.

    At most `most_bp` of one strand are used: an equal part of each genome, spread evenly over its contigs.
    The last tenth of each chunk, or less, serves to choose the order and the pseudo-count.
    """
    most_bp = max(1, most_bp // len(genomes))
    chunks = [
        (genome, *place)
        for genome, ranges in zip(genomes, held_out, strict=True)
        for place in spread(outside(ranges, genome.length_bp.cpu().numpy()), most_bp)
    ]
    to_choose = CHOOSE_MOST_BP // max(len(chunks), 1)
    choosing: list[np.ndarray] = []

    def fitting() -> Iterator[np.ndarray]:
        for genome, contig, start_bp, end_bp in chunks:
            cut_bp = end_bp - min(int((end_bp - start_bp) * CHOOSE_SHARE), to_choose)
            yield from both_strands(base_codes(genome, contig, start_bp, cut_bp))
            if cut_bp < end_bp:
                choosing.append(base_codes(genome, contig, cut_bp, end_bp))

    bases = 2 * sum(end_bp - start_bp for *_, start_bp, end_bp in chunks)
    order = max((n for n in range(HIGHEST_ORDER + 1) if 4 ** (n + 1) <= ENTRIES_PER_BASE * bases), default=0)
    return Chains.of(MarkovChain(order).fit(fitting()), choosing)


def both_strands(codes: np.ndarray) -> Iterator[np.ndarray]:
    """Base codes (A 0, G 1, C 2, T 3) and their reverse complement; -1, an unknown base, stays -1."""
    yield codes
    yield np.where(codes >= 0, 3 - codes, codes)[::-1]
