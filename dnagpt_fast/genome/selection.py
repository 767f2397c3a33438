"""The parts of a genome that a command works on: contigs, windows, given ranges, the intervals of a BED
file."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.genome_range import GenomeRange
from dnagpt_fast.genome.interval_files import interval_lines
from dnagpt_fast.genome.regions import range_in, split_strand
from dnagpt_fast.input_files import InputFileError, readable


class Place(NamedTuple):
    """[start_bp, end_bp) of a contig (its name in the genome), strand + or -."""

    name: str
    contig: str
    start_bp: int
    end_bp: int
    strand: str = "+"


def place_of(genome: Genome, given: "Place | GenomeRange | str") -> Place:
    """A place, a range of the genome, or its text such as `chr1:10-20(-)`, as a Place. Raises RegionError."""
    if isinstance(given, Place):
        return given
    if isinstance(given, GenomeRange):
        return Place(given.region, given.name, given.start_bp, given.end_bp, given.strand)
    return _of_text(genome, given, "place")


@dataclass(frozen=True)
class Places:
    """The places of `places_of`, made one at a time, so that a million contigs or windows need no memory.

    given      None: all contigs except empty ones
    window_bp  each place is divided into windows from its start, the last one shorter, named
               contig:start_bp-end_bp
    """

    genome: Genome
    given: list[Place] | None
    window_bp: int | None

    def __iter__(self) -> Iterator[Place]:
        places = self._contigs() if self.given is None else iter(self.given)
        return places if self.window_bp is None else _windows(places, self.window_bp)

    @property
    def total_bp(self) -> int:
        if self.given is None:
            return int(self.genome.lengths.sum())
        return sum(place.end_bp - place.start_bp for place in self.given)

    def _contigs(self) -> Iterator[Place]:
        for name, length in zip(self.genome.names, self.genome.lengths.tolist(), strict=True):
            if length:
                yield Place(name, name, 0, length)


def places_of(
    genome: Genome,
    regions: Sequence[str] = (),
    bed: str | Path | None = None,
    window_bp: int | None = None,
) -> Places:
    """The given ranges (`contig` or `contig:start_bp-end_bp`, 0-based and half-open; with `(-)` after it on the
    reverse strand), then the intervals of the BED file; if neither is given, all contigs except empty ones.

    window_bp  see Places
    Raises InputFileError (RegionError for a place that the genome does not have), with the range, or the file
    and line; ValueError for window_bp < 1. Everything is checked here, before the first place is made.
    """
    if window_bp is not None and window_bp < 1:
        raise ValueError(f"window_bp = {window_bp}: wanted 1 or more")
    places = [_of_text(genome, text) for text in regions]
    if bed is not None:
        places += read_bed_places(genome, bed)
    return Places(genome, places if regions or bed is not None else None, window_bp)


def range_name(contig: str, start_bp: int, end_bp: int, strand: str = "+") -> str:
    """The name of a range as in bedtools: `chr1:10-20`, on the reverse strand `chr1:10-20(-)`."""
    return f"{contig}:{start_bp}-{end_bp}" + ("(-)" if strand == "-" else "")


def _windows(places: Iterable[Place], window_bp: int) -> Iterator[Place]:
    for _, contig, first, last, strand in places:
        for start in range(first, last, window_bp):
            end = min(start + window_bp, last)
            yield Place(range_name(contig, start, end, strand), contig, start, end, strand)


def _of_text(genome: Genome, text: str, what: str = "--region") -> Place:
    bare, strand = split_strand(text, genome.contigs.__contains__)
    contig, start, end = range_in(bare, genome.contigs, genome.lengths, what)
    return Place(text, genome.names[contig], start, end, strand)


def read_bed_places(genome: Genome, path: str | Path) -> list[Place]:
    """The intervals of a BED file, plain or gzip, with name and strand if present. Without a name, or with
    `.`, the range is the name. Raises InputFileError that names file and line."""
    places = []
    for line in interval_lines(path, bed=True):
        number, start, end = line.place(genome)
        contig, strand = genome.names[number], line.strand()
        name = readable(line.fields[3], line.where, "name") if len(line.fields) > 3 else ""
        if name in ("", "."):
            name = range_name(contig, start, end, strand)
        places.append(Place(name, contig, start, end, strand))
    if not places:
        raise InputFileError(f"{path}: no intervals")
    return places
