"""What a command works on in a genome: contigs, their windows, given ranges, the intervals of a BED file."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.regions import RegionError, is_browser_line, range_in
from dnagpt_fast.input_files import text_lines


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
    Raises RegionError (a ValueError) for what the genome does not have, naming the range, or the file and line;
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
    """The intervals of a BED file, plain or gzip: contig, start, end and, where they are there, name and strand (the
    fourth and sixth column). A name that is missing or `.` is the range. Raises RegionError naming file and line."""
    places = []
    for number, raw in text_lines(path):
        line = raw.rstrip("\r\n")
        if not line.strip() or line.startswith("#") or is_browser_line(line):
            continue
        where = f"{path}:{number}"
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
        if len(fields) < 3 or not (fields[1].isdigit() and fields[2].isdigit()):
            raise RegionError(f"{where}: {line[:60]!r}: wanted contig, start and end, parted by tabs")
        contig = genome.contigs.find(fields[0], where)
        start, end, length = int(fields[1]), int(fields[2]), int(genome.lengths[contig])
        if not 0 <= start < end <= length:
            raise RegionError(
                f"{where}: [{start}, {end}) of {fields[0]}: wanted 0 <= start < end <= {length:,}"
            )
        strand = fields[5] if len(fields) > 5 else "."
        if strand not in ("+", "-", "."):
            raise RegionError(f"{where}: strand {strand!r}: wanted +, - or . (taken as +)")
        strand = "-" if strand == "-" else "+"
        name = fields[3] if len(fields) > 3 and fields[3] not in ("", ".") else ""
        contig_name = genome.names[contig]
        places.append(
            Place(name or range_name(contig_name, start, end, strand), contig_name, start, end, strand)
        )
    if not places:
        raise RegionError(f"{path}: no intervals")
    return places
