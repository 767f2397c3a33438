"""Base counts of contigs and ranges of a genome: the rows of `dnagpt-fast info`."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass

import numpy as np

from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.selection import Place


@dataclass(frozen=True)
class Counts:
    """All bases of a place; unknown ones and their runs; soft-masked ones; G + C among the known ones."""

    length_bp: int
    n_bp: int
    n_blocks: int
    masked_bp: int
    gc_bp: int

    @property
    def gc(self) -> float | None:
        """(G + C) / known bases; None if no base is known."""
        known = self.length_bp - self.n_bp
        return self.gc_bp / known if known else None

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "gc": self.gc}


def contig_counts(genome: Genome) -> Iterator[tuple[Place, Counts]]:
    """Every contig, in file order."""
    gc, known = genome.host.gc_of_contigs()
    columns = (genome.lengths, known, np.diff(genome.host.n_block_index), genome.masked_bp(), gc)
    rows = zip(genome.names, *(column.tolist() for column in columns), strict=True)
    for name, length, known_bp, n_blocks, masked_bp, gc_bp in rows:
        yield (
            Place(name, name, 0, length),
            Counts(length, length - known_bp, n_blocks, masked_bp, gc_bp),
        )


def place_counts(genome: Genome, places: Iterable[Place]) -> Iterator[tuple[Place, Counts]]:
    """Every place, in the order given. A run of N that a place cuts counts as one of its runs."""
    places = list(places)
    contig = np.array([genome.contigs.find(place.contig) for place in places], np.int64)
    start_bp = np.array([place.start_bp for place in places], np.int64)
    length_bp = np.array([place.end_bp for place in places], np.int64) - start_bp
    gc, known = genome.host.gc_of(contig, start_bp, length_bp)
    n_blocks, masked_bp = np.zeros_like(gc), np.zeros_like(gc)
    for number in np.unique(contig).tolist():
        some, name = contig == number, genome.names[number]
        ranges = start_bp[some], start_bp[some] + length_bp[some]
        n_blocks[some] = _blocks_in(genome.n_blocks(name), *ranges)
        masked_bp[some] = _bases_in(genome.mask_blocks(name), *ranges)
    columns = (length_bp, length_bp - known, n_blocks, masked_bp, gc)
    for place, *row in zip(places, *(column.tolist() for column in columns), strict=True):
        yield place, Counts(*row)


def total(counts: Iterable[Counts]) -> Counts:
    """The sums; what is in two ranges counts twice."""
    return Counts(*(sum(column) for column in zip(*map(astuple, counts), strict=True)))


def _blocks_in(blocks: np.ndarray, start_bp: np.ndarray, end_bp: np.ndarray) -> np.ndarray:
    """How many of the sorted, disjoint blocks int64 (n, 2) each range has bases of."""
    begun = np.searchsorted(blocks[:, 0], end_bp, "left")
    ended = np.searchsorted(blocks[:, 1], start_bp, "right")
    return np.where(end_bp > start_bp, begun - ended, 0)


def _bases_in(blocks: np.ndarray, start_bp: np.ndarray, end_bp: np.ndarray) -> np.ndarray:
    """How many bases of the sorted, disjoint blocks int64 (n, 2) are in each range."""
    bases = np.concatenate([[0], np.cumsum(blocks[:, 1] - blocks[:, 0])])
    ends = np.concatenate([[0], blocks[:, 1]])

    def before(position: np.ndarray) -> np.ndarray:
        begun = np.searchsorted(blocks[:, 0], position, "left")
        return bases[begun] - np.maximum(ends[begun] - position, 0)

    return before(end_bp) - before(start_bp)
