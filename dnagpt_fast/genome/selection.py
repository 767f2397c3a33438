"""What a command works on in a genome: contigs, their windows, given ranges, the intervals of a BED file."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.interval_files import interval_lines
from dnagpt_fast.genome.regions import range_in
from dnagpt_fast.input_files import InputFileError, readable


class Place(NamedTuple):
    """[start_bp, end_bp) of a contig (its name in the genome), strand + or -."""

    name: str
    contig: str
    start_bp: int
    end_bp: int
    strand: str = "+"


def places_of(
    genome: Genome,
    regions: Sequence[str] = (),
    bed: str | Path | None = None,
    window_bp: int | None = None,
) -> Iterator[Place]:
    """The ranges (`contig` or `contig:start_bp-end_bp`, 0-based and half-open) and then the intervals of the BED file,
    in their order; where neither is given all contigs but empty ones.

    window_bp  cuts each place into windows from its start, the last one shorter, named contig:start_bp-end_bp
    Raises InputFileError (RegionError for what the genome does not have), naming the range, or the file and line;
    ValueError for window_bp < 1. All is checked before the first place is given.
    """
    if window_bp is not None and window_bp < 1:
        raise ValueError(f"window_bp = {window_bp}: wanted 1 or more")
    places = [_of_text(genome, text) for text in regions]
    if bed is not None:
        places += read_bed_places(genome, bed)
    if not regions and bed is None:
        lengths = zip(genome.names, genome.lengths.tolist(), strict=True)
        places = [Place(name, name, 0, length) for name, length in lengths if length]
    return iter(places) if window_bp is None else _windows(places, window_bp)


def range_name(contig: str, start_bp: int, end_bp: int, strand: str = "+") -> str:
    """As bedtools names sequences: `chr1:10-20`, on the reverse strand `chr1:10-20(-)`."""
    return f"{contig}:{start_bp}-{end_bp}" + ("(-)" if strand == "-" else "")


def _windows(places: Iterable[Place], window_bp: int) -> Iterator[Place]:
    for _, contig, first, last, strand in places:
        for start in range(first, last, window_bp):
            end = min(start + window_bp, last)
            yield Place(range_name(contig, start, end, strand), contig, start, end, strand)


def _of_text(genome: Genome, text: str) -> Place:
    contig, start, end = range_in(text, genome.contigs, genome.lengths.tolist(), "--region")
    return Place(text, genome.names[contig], start, end)


def read_bed_places(genome: Genome, path: str | Path) -> list[Place]:
    """The intervals of a BED file, plain or gzip, with name and strand where it has them. A name that is missing or `.`
    is the range. Raises InputFileError naming file and line."""
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
