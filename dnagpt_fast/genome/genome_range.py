"""`GenomeRange`: a range of a contig that looks like its text, and unpacks nothing before it is read."""

from dataclasses import dataclass, replace

from dnagpt_fast.ops.sequence_text import letters_of_range
from dnagpt_fast.packed import PackedRange


@dataclass(frozen=True, eq=False, repr=False)
class GenomeRange(PackedRange):
    """Bases [start_bp, end_bp) of a contig on one strand: what `genome["chr1:10-20"]` gives.

    `str(part)` is its text in upper case, `len(part)` its bases, `part[5:10]` a part of it in its own direction,
    `part[3]` a letter, `part.reverse_complement()` its other strand. `embed`, `score` and all functions that take a
    sequence take it as it is, without unpacking it.

    name  the contig's
    """

    name: str = ""

    def __str__(self) -> str:
        return letters_of_range(self)

    def __getitem__(self, index: "int | slice") -> "GenomeRange | str":
        """Raises IndexError for a letter outside the range, ValueError for a slice with a step."""
        if isinstance(index, slice):
            if index.step not in (None, 1):
                raise ValueError(
                    f"a step of {index.step}: wanted 1; the other strand is `reverse_complement()`"
                )
            start, stop, _ = index.indices(len(self))
            return self.part(start, max(start, stop))
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"base {index}: {self.region} has {len(self):,}")
        return str(self.part(at, at + 1))

    def part(self, start: int, end: int) -> "GenomeRange":
        if self.reverse:
            start, end = len(self) - end, len(self) - start
        return replace(self, start_bp=self.start_bp + start, end_bp=self.start_bp + end)

    def reverse_complement(self) -> "GenomeRange":
        return replace(self, reverse=not self.reverse)

    @property
    def strand(self) -> str:
        return "-" if self.reverse else "+"

    @property
    def region(self) -> str:
        """The range as `Genome` reads it: `chr1:10-20`, on the reverse strand `chr1:10-20(-)`."""
        return f"{self.name}:{self.start_bp}-{self.end_bp}" + ("(-)" if self.reverse else "")

    def __repr__(self) -> str:
        shown = str(self) if len(self) <= 24 else f"{self[:12]}...{self[-9:]}"
        return f"GenomeRange({self.region!r}, {len(self):,} bp, {shown})"
