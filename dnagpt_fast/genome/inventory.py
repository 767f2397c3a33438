"""Base counts of each contig of a genome: the rows of `dnagpt-fast info`."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dnagpt_fast.genome.genome import Genome


@dataclass(frozen=True)
class ContigRow:
    """One contig, or the total: numbers of all bases, unknown and soft-masked ones, and G + C among the known
    ones."""

    name: str
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


def contig_rows(genome: Genome) -> Iterator[ContigRow]:
    """One row per contig, in file order."""
    gc, known = genome.host.gc_of_contigs()
    columns = (genome.lengths, known, np.diff(genome.host.n_block_index), genome.masked_bp(), gc)
    rows = zip(genome.names, *(column.tolist() for column in columns), strict=True)
    for name, length, known_bp, n_blocks, masked_bp, gc_bp in rows:
        yield ContigRow(name, length, length - known_bp, n_blocks, masked_bp, gc_bp)


def total_row(rows: Sequence[ContigRow]) -> ContigRow:
    """The row of the sums."""
    fields = ("length_bp", "n_bp", "n_blocks", "masked_bp", "gc_bp")
    return ContigRow("total", **{field: sum(getattr(row, field) for row in rows) for field in fields})
