"""Intervals on contigs: allowed window starts, counts of N, weights, and adjacent windows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dnagpt_fast.packed import PackedGenome


class UnknownBases:
    """Counts N in ranges of a genome. The contigs are concatenated on one axis; contig c starts at
    `offset[c]`."""

    def __init__(self, genome: PackedGenome) -> None:
        lengths = genome.length_bp.cpu().numpy()
        self.offset = np.concatenate([[0], np.cumsum(lengths)])
        blocks_of = np.diff(genome.n_block_index.cpu().numpy())
        shift = np.repeat(self.offset[:-1], blocks_of)
        self.start = genome.n_block_start_bp.cpu().numpy() + shift
        self.end = genome.n_block_end_bp.cpu().numpy() + shift
        self._before = np.concatenate([[0], np.cumsum(self.end - self.start)])

    def before(self, position: np.ndarray) -> np.ndarray:
        """Number of unknown bases before each position on the common axis."""
        block = np.searchsorted(self.start, position, side="right")
        inside = np.where(block > 0, np.maximum(self.end[block - 1] - position, 0), 0) if len(self.end) else 0
        return self._before[block] - inside

    def count(self, contig: np.ndarray, start_bp: np.ndarray, length_bp: int | np.ndarray) -> np.ndarray:
        """Unknown bases of the windows [start_bp, start_bp + length_bp); int64 (B,)."""
        position = self.offset[contig] + start_bp
        return self.before(position + length_bp) - self.before(position)


@dataclass(frozen=True)
class Intervals:
    """Intervals [start_bp, end_bp) on contigs; int64 arrays of one length, in the order of contig and start."""

    contig: np.ndarray
    start_bp: np.ndarray
    end_bp: np.ndarray

    def __len__(self) -> int:
        return len(self.contig)


def outside(held_out: Intervals, length_bp: np.ndarray) -> Intervals:
    """The parts of contigs of these lengths outside the held-out ranges, which may overlap and be in any
    order."""
    order = np.lexsort((held_out.start_bp, held_out.contig))
    edge = {c: 0 for c in range(len(length_bp))}
    pieces = []
    for i in order:
        contig, start, end = int(held_out.contig[i]), int(held_out.start_bp[i]), int(held_out.end_bp[i])
        pieces.append((contig, edge[contig], start))
        edge[contig] = max(edge[contig], end)
    pieces += [(contig, start, int(length_bp[contig])) for contig, start in edge.items()]
    kept = sorted(piece for piece in pieces if piece[1] < piece[2])
    columns = np.array(kept, dtype=np.int64).reshape(-1, 3)
    return Intervals(columns[:, 0], columns[:, 1], columns[:, 2])


def allowed_starts(genome: PackedGenome, within: Intervals, length_bp: int, max_n_bp: int) -> Intervals:
    """Starts of windows inside one interval of `within` with at most `max_n_bp` unknown bases.

    Between two neighbouring points of {N block edges} and {N block edges - length_bp} the number of unknown bases is a
    linear function with slope -1, 0 or 1, so the allowed part of each such piece is one interval.
    """
    unknown = UnknownBases(genome)
    offset = unknown.offset
    first, stop = (
        offset[within.contig] + within.start_bp,
        offset[within.contig] + within.end_bp - length_bp + 1,
    )
    fits = stop > first
    first, stop, contig = first[fits], stop[fits], within.contig[fits]
    edges = np.concatenate([unknown.start, unknown.end])
    points = np.unique(np.concatenate([edges, edges - length_bp, first, stop]))
    low, high = points[:-1], points[1:]
    owner = np.searchsorted(first, low, side="right") - 1
    inside = (owner >= 0) & (low < stop[owner]) if len(first) else np.zeros(len(low), dtype=bool)
    low, high, owner = low[inside], high[inside], owner[inside]
    count_low = unknown.before(low + length_bp) - unknown.before(low)
    count_last = unknown.before(high - 1 + length_bp) - unknown.before(high - 1)
    low = np.where((count_low > max_n_bp) & (count_last < count_low), low + count_low - max_n_bp, low)
    high = np.where((count_last > max_n_bp) & (count_last > count_low), high - (count_last - max_n_bp), high)
    keep = (np.minimum(count_low, count_last) <= max_n_bp) & (low < high)
    low, high, owner = low[keep], high[keep], owner[keep]
    new = np.ones(len(low), dtype=bool)
    new[1:] = (low[1:] != high[:-1]) | (owner[1:] != owner[:-1])
    last = np.append(new[1:], True) if len(new) else new
    shift = offset[contig[owner[new]]]
    return Intervals(contig[owner[new]], low[new] - shift, high[last] - shift)


@dataclass(frozen=True)
class WeightedPlaces:
    """Disjoint intervals of a genome in the order of contig and start, and the weight (n,) of each, 0 or more."""

    intervals: Intervals
    weight: np.ndarray


def weighted_starts(
    genome: PackedGenome, starts: Intervals, middle_bp: int, places: Sequence[WeightedPlaces]
) -> tuple[Intervals, np.ndarray]:
    """Intervals of window starts, divided where the weight of a window changes, and the weight of each piece,
    float64.

    The weight of a window is the product over `places` of the weights at its base start + middle_bp; a list
    has weight 1 outside its intervals. Pieces with weight 0 are left out.
    """
    lengths = genome.length_bp.cpu().numpy()
    # On the common axis there is a gap of middle_bp between contigs, so that no place reaches into the contig
    # before it.
    offset = np.concatenate([[0], np.cumsum(lengths + middle_bp)])
    first, stop, contig = (
        starts.start_bp + offset[starts.contig],
        starts.end_bp + offset[starts.contig],
        starts.contig,
    )
    weight = np.ones(len(first))
    for listed in places:
        if not len(first):
            break
        shift = offset[listed.intervals.contig] - middle_bp
        begin, end = listed.intervals.start_bp + shift, listed.intervals.end_bp + shift
        points = np.unique(np.concatenate([first, stop, begin, end]))
        low, high = points[:-1], points[1:]
        owner = np.searchsorted(first, low, side="right") - 1
        inside = (owner >= 0) & (low < stop[owner])
        low, high, owner = low[inside], high[inside], owner[inside]
        place = np.searchsorted(begin, low, side="right") - 1
        covered = (place >= 0) & (low < end[place]) if len(begin) else np.zeros(len(low), dtype=bool)
        factor = np.where(covered, listed.weight[place], 1.0) if len(begin) else np.ones(len(low))
        product = weight[owner] * factor
        keep = product > 0
        first, stop, contig, weight = low[keep], high[keep], contig[owner[keep]], product[keep]
    return Intervals(contig, first - offset[contig], stop - offset[contig]), weight


def tile(genome: PackedGenome, ranges: Intervals, length_bp: int, max_n_bp: int) -> Intervals:
    """Adjacent windows from the start of each range, without those with more than `max_n_bp` unknown
    bases."""
    contig, start = [], []
    for c, first, end in zip(ranges.contig, ranges.start_bp, ranges.end_bp, strict=True):
        starts = np.arange(first, end - length_bp + 1, length_bp, dtype=np.int64)
        start.append(starts)
        contig.append(np.full(len(starts), c, dtype=np.int64))
    contigs = np.concatenate([*contig, np.zeros(0, dtype=np.int64)])
    starts = np.concatenate([*start, np.zeros(0, dtype=np.int64)])
    keep = UnknownBases(genome).count(contigs, starts, length_bp) <= max_n_bp
    return Intervals(contigs[keep], starts[keep], starts[keep] + length_bp)
