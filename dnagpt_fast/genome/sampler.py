"""Draws the window of sample i with a counter-based generator, so that it depends only on (seed, i).

Resuming needs only a counter, processes compute disjoint indices, and any device can draw the same windows:
everything below is integer arithmetic on 32- and 64-bit words.

Generator: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

    key word 0      low 32 bits of the seed
    key word 1      high 32 bits of the seed
    counter word 0  low 32 bits of the sample index i
    counter word 1  high 32 bits of the sample index i
    counter word 2  stream: STREAM_WINDOWS here; other users of the seed use other streams
    counter word 3  0

    output word 0   genome: the number of entries of `genome_threshold` that are <= word 0
    output word 1   low half, and
    output word 2   high half of the 64-bit word u; the start's rank among the genome's S ranks is (u * S) >>
                    64; the probabilities of ranks differ by at most 2^-64. An allowed start has one rank or,
                    with weighted places, several consecutive ranks in proportion to its weight
                    (`ranks_per_start`)
    output word 3   orientation: ORIENTATIONS[the number of entries of `orientation_threshold` that are <= word 3]

A start is allowed if its window is in one contig, overlaps no held-out range and has at most `max_n_bp`
unknown bases. These starts form few intervals, computed once from the lengths and the N blocks
(`allowed_starts`), so no window is drawn and then rejected: a binary search finds the rank in the intervals'
cumulative numbers of ranks, which are in the order of genome, contig, start.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dnagpt_fast.batch import Windows
from dnagpt_fast.genome.intervals import Intervals, WeightedPlaces, allowed_starts, outside, weighted_starts
from dnagpt_fast.packed import PackedGenome

STREAM_WINDOWS = 0
# Forward strand, forward strand reversed, reverse strand, reverse strand reversed.
ORIENTATIONS = (0, 1, 3, 2)
RANKS_OF_THE_LEAST = 1024

PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
PHILOX_WEYL = (0x9E3779B9, 0xBB67AE85)
PHILOX_ROUNDS = 10
MASK_32 = np.uint64(0xFFFFFFFF)
SHIFT_32 = np.uint64(32)


def philox4x32(
    counter: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], key: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Philox4x32-10: four counter words and two key words, each below 2^32 -> four random words, uint64 arrays (B,)."""
    c0, c1, c2, c3 = (np.asarray(word, dtype=np.uint64) for word in counter)
    k0, k1 = key
    for _ in range(PHILOX_ROUNDS):
        product_0 = c0 * np.uint64(PHILOX_MULTIPLIERS[0])
        product_1 = c2 * np.uint64(PHILOX_MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (product_1 >> SHIFT_32) ^ c1 ^ np.uint64(k0),
            product_1 & MASK_32,
            (product_0 >> SHIFT_32) ^ c3 ^ np.uint64(k1),
            product_0 & MASK_32,
        )
        k0, k1 = (k0 + PHILOX_WEYL[0]) & 0xFFFFFFFF, (k1 + PHILOX_WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def multiply_high(u_low: np.ndarray, u_high: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """(u * factor) >> 64 for u = u_high * 2^32 + u_low and a 64-bit factor; uint64 arrays."""
    f_low, f_high = factor & MASK_32, factor >> SHIFT_32
    middle = u_high * f_low + ((u_low * f_low) >> SHIFT_32)
    carry = (u_low * f_high + (middle & MASK_32)) >> SHIFT_32
    return u_high * f_high + (middle >> SHIFT_32) + carry


@dataclass(frozen=True)
class SamplerTables:
    """The tables with which a kernel draws window i; G genomes, S intervals of allowed starts.

    genome_threshold       uint64 (G - 1,)  ascending, up to 2^32
    orientation_threshold  uint64 (3,)      ascending, up to 2^32
    interval_index         int64 (G + 1,)   genome g has the intervals interval_index[g] : interval_index[g +
                           1]
    rank_before            int64 (S + 1,)   number of ranks in all intervals before this one
    contig, start_bp       int64 (S,)       start of the interval
    ranks_per_start        int64 (S,)       >= 1, the weight of each start of the interval; 1 without weighted
                           places
    """

    genome_threshold: np.ndarray
    orientation_threshold: np.ndarray
    interval_index: np.ndarray
    rank_before: np.ndarray
    contig: np.ndarray
    start_bp: np.ndarray
    ranks_per_start: np.ndarray


def thresholds(weights: Sequence[float]) -> np.ndarray:
    """Thresholds for random 32-bit words, uint64 (len(weights) - 1,): word w chooses the number of entries <=
    w."""
    cumulative = np.cumsum(np.asarray(weights, dtype=np.float64))
    return np.floor(cumulative[:-1] / cumulative[-1] * 2.0**32 + 0.5).astype(np.uint64)


def ranks_of(weight: np.ndarray, starts: np.ndarray, label: str) -> np.ndarray:
    """Weights of intervals -> number of ranks for each of their starts, int64; all 1 if the weights are
    equal.

    The smallest weight gets RANKS_OF_THE_LEAST ranks per start, so that ratios of weights are exact to 0.1 %.
    starts: the number of starts in each interval. Raises ValueError if the sum of ranks needs more than 62
    bits.
    """
    least = weight.min()
    if (weight == least).all():
        return np.ones(len(weight), dtype=np.int64)
    wanted = weight / least * RANKS_OF_THE_LEAST
    if float(np.dot(wanted, starts)) >= 2.0**62:
        raise ValueError(
            f"{label}: weights of places from {least:g} to {weight.max():g}: wanted a smaller ratio, or a weight of 0"
        )
    return np.rint(wanted).astype(np.int64)


class WindowSampler:
    """Draws windows of `length_bp` from one or more genomes; `sample(i, count)` gives the samples i .. i +
    count - 1.

    places: for each genome the weights of its places. The weight of a window is the product of the weights at
    its middle base, start_bp + length_bp // 2; 1 outside all places.

    Raises ValueError, before any training, for shares, weights or a seed out of range, and for a genome
    without an allowed window; the message names the genome and the reason.
    """

    def __init__(
        self,
        genomes: Sequence[PackedGenome],
        length_bp: int,
        *,
        seed: int,
        weights: Sequence[float] | None = None,
        held_out: Sequence[Intervals] | None = None,
        places: Sequence[Sequence[WeightedPlaces]] | None = None,
        labels: Sequence[str] | None = None,
        reversed_share: float = 0.5,
        reverse_complement_share: float = 0.5,
        max_n_share: float = 0.05,
    ) -> None:
        if not genomes:
            raise ValueError("no genome to sample from")
        if length_bp < 1:
            raise ValueError(f"window length {length_bp} bp: wanted at least 1")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed {seed}: wanted 0 <= seed < 2^64")
        for name, share in (
            ("reversed_share", reversed_share),
            ("reverse_complement_share", reverse_complement_share),
            ("max_n_share", max_n_share),
        ):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} = {share}: wanted 0..1")
        empty = np.zeros(0, dtype=np.int64)
        held_out = held_out or [Intervals(empty, empty, empty)] * len(genomes)
        labels = labels or [f"genome {g}" for g in range(len(genomes))]
        weights = weights or [1.0] * len(genomes)
        places = places or [()] * len(genomes)
        if not len(genomes) == len(held_out) == len(labels) == len(weights) == len(places):
            raise ValueError(
                f"{len(genomes)} genomes, {len(weights)} weights, {len(held_out)} held-out tables, "
                f"{len(places)} lists of places, {len(labels)} labels: wanted one each"
            )
        for label, weight in zip(labels, weights, strict=True):
            if not (weight > 0 and np.isfinite(weight) and weight / sum(weights) >= 2.0**-32):
                raise ValueError(
                    f"{label}: weight {weight} of {sum(weights)} in total: wanted a share of at least 2^-32"
                )
        self.length_bp = length_bp
        self.seed = seed
        self.max_n_bp = int(max_n_share * length_bp)
        found, ranks = [], []
        for genome, ranges, weighted, label in zip(genomes, held_out, places, labels, strict=True):
            left = outside(ranges, genome.length_bp.cpu().numpy())
            starts = allowed_starts(genome, left, length_bp, self.max_n_bp)
            if not len(starts):
                raise ValueError(_no_window(label, genome, left, length_bp, self.max_n_bp))
            starts, place_weight = weighted_starts(genome, starts, length_bp // 2, weighted)
            if not len(starts):
                raise ValueError(f"{label}: the weight of every allowed window is 0: nothing to sample from")
            found.append(starts)
            ranks.append(ranks_of(place_weight, starts.end_bp - starts.start_bp, label))
        straight, backward = 1 - reversed_share, reversed_share
        forward, other = 1 - reverse_complement_share, reverse_complement_share
        per_start = np.concatenate(ranks)
        sizes = np.concatenate([starts.end_bp - starts.start_bp for starts in found]) * per_start
        self.tables = SamplerTables(
            genome_threshold=thresholds(weights),
            orientation_threshold=thresholds(
                [straight * forward, backward * forward, straight * other, backward * other]
            ),
            interval_index=np.concatenate([[0], np.cumsum([len(starts) for starts in found])]),
            rank_before=np.concatenate([[0], np.cumsum(sizes)]),
            contig=np.concatenate([starts.contig for starts in found]),
            start_bp=np.concatenate([starts.start_bp for starts in found]),
            ranks_per_start=per_start,
        )

    @property
    def n_ranks(self) -> np.ndarray:
        """Number of ranks of each genome: its allowed starts, each times its ranks_per_start; int64 (G,)."""
        return np.diff(self.tables.rank_before[self.tables.interval_index])

    def sample(self, first_index: int, count: int) -> Windows:
        """Samples first_index .. first_index + count - 1 as int64 tensors (count,). Raises ValueError beyond 2^64."""
        if first_index < 0 or count < 0 or first_index + count > 2**64:
            raise ValueError(f"samples {first_index} .. {first_index + count}: wanted indices 0 .. 2^64")
        tables = self.tables
        index = np.uint64(first_index) + np.arange(count, dtype=np.uint64)
        constant = np.zeros(count, dtype=np.uint64)
        words = philox4x32(
            (index & MASK_32, index >> SHIFT_32, constant + np.uint64(STREAM_WINDOWS), constant),
            (self.seed & 0xFFFFFFFF, self.seed >> 32),
        )
        genome = np.searchsorted(tables.genome_threshold, words[0], side="right")
        before = tables.rank_before[tables.interval_index]
        rank = multiply_high(words[1], words[2], self.n_ranks[genome].astype(np.uint64)).astype(np.int64)
        rank += before[genome]
        interval = np.searchsorted(tables.rank_before, rank, side="right") - 1
        inside = (rank - tables.rank_before[interval]) // tables.ranks_per_start[interval]
        start = tables.start_bp[interval] + inside
        turn = np.searchsorted(tables.orientation_threshold, words[3], side="right")
        return Windows(
            genome=torch.from_numpy(genome.astype(np.int64)),
            contig=torch.from_numpy(tables.contig[interval]),
            start_bp=torch.from_numpy(start),
            orientation=torch.from_numpy(np.array(ORIENTATIONS, dtype=np.int64)[turn]),
        )


def _no_window(label: str, genome: PackedGenome, left: Intervals, length_bp: int, max_n_bp: int) -> str:
    longest_contig = int(genome.length_bp.max()) if len(genome.length_bp) else 0
    longest_left = int((left.end_bp - left.start_bp).max()) if len(left) else 0
    return (
        f"{label}: no window of {length_bp} bp fits: its longest contig has {longest_contig} bp, the longest piece "
        f"outside the held-out ranges {longest_left} bp, and a window may have at most {max_n_bp} unknown bases"
    )
