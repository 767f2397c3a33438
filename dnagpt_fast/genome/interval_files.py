"""Reads and checks intervals from BED, GTF and GFF3 files, for all parts of the package.

BED is 0-based and half-open (https://genome.ucsc.edu/FAQ/FAQformat.html#format1), GTF and GFF3 are 1-based and closed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.regions import is_browser_line
from dnagpt_fast.input_files import InputFileError, bare, parse_integer, text_lines

BED_COLUMNS = ("contig", "start_bp", "end_bp", "name", "score", "strand")
GFF_COLUMNS = ("contig", "source", "feature", "start", "end", "score", "strand", "phase", "attributes")
_STARTS = ("start", "start_bp", "chromstart", "chrom_start")
_GFF_STRANDS = ("+", "-", ".", "?")


@dataclass(frozen=True, slots=True)
class IntervalLine:
    """One line. columns: names of the fields; contig: its name in the file.

    is_annotation  whether it is a line of GTF or GFF3, not of BED
    is_circular    GFF3: whether its contig is circular, so that an interval may pass the end
    """

    where: str
    fields: list[str]
    columns: tuple[str, ...]
    contig: str
    is_annotation: bool = False
    is_circular: bool = False

    def column(self, name: str) -> str:
        """The field with this name; empty if there is none."""
        return self.fields[self.columns.index(name)] if name in self.columns else ""

    def span_bp(self) -> tuple[int, int]:
        """[start, end), 0-based. Raises InputFileError unless 0 <= start < end."""
        names = ("start", "end") if self.is_annotation else ("start_bp", "end_bp")
        start, end = (parse_integer(self.column(name), self.where, name) for name in names)
        start -= self.is_annotation
        if not 0 <= start < end:
            raise InputFileError(
                f"{self.where}: [{start}, {end}) of {self.contig!r}: wanted 0 <= start < end; remove the line of an "
                "empty interval"
            )
        return start, end

    def strand(self) -> str:
        """`+` or `-`; `.` is read as `+`. Raises InputFileError for anything else."""
        strand = self.column("strand") or "."
        if strand not in ("+", "-", "."):
            raise InputFileError(f"{self.where}: strand {strand!r}: wanted +, - or . (read as +)")
        return "-" if strand == "-" else "+"

    def places(self, genome: Genome) -> list[tuple[int, int, int]]:
        """(number of the contig, start_bp, end_bp); two of them for an interval over the origin of a circular contig.

        Raises RegionError for a contig that the genome does not have, InputFileError for an interval outside it.
        """
        contig = genome.contigs.find(self.contig, self.where)
        spans = inside(*self.span_bp(), int(genome.lengths[contig]), self.is_circular)
        if not spans:
            start, end = self.span_bp()
            raise InputFileError(
                f"{self.where}: [{start}, {end}) of {self.contig!r}: wanted 0 <= start < end <= "
                f"{int(genome.lengths[contig])}, its length; is this the genome that the intervals were made on?"
            )
        return [(contig, *span) for span in spans]

    def place(self, genome: Genome) -> tuple[int, int, int]:
        """The only place of a BED line, which has no circular contigs."""
        (found,) = self.places(genome)
        return found


def inside(start_bp: int, end_bp: int, length_bp: int, is_circular: bool) -> list[tuple[int, int]]:
    """The interval in a contig of this length: unchanged, or in two pieces if it passes the origin of a
    circular contig, or empty if it does not fit."""
    if end_bp <= length_bp:
        return [(start_bp, end_bp)]
    if is_circular and start_bp < length_bp and end_bp - start_bp <= length_bp:
        return [(start_bp, length_bp), (0, end_bp - length_bp)]
    return []


def interval_lines(path: str | Path, *, bed: bool = False) -> Iterator[IntervalLine]:
    """The lines with intervals of a BED, GTF or GFF3 file, plain or gzip; each line is recognised by its content.

    Comments, blank lines, lines for the genome browser and sequences after the annotation are skipped. Fields
    are separated by tabs, or by blanks in a line without tabs. A line before the first interval names the
    columns from the fourth on if it has the same number of fields and is a comment with tabs, or has a word
    such as `chromStart` in place of a start.
    bed  all lines are BED
    Raises InputFileError that names file and line for fewer than three fields.
    """
    headers: list[list[str]] = []
    named: dict[int, tuple[str, ...]] = {}
    circles: set[str] = set()
    begun = False
    for number, raw in text_lines(path):
        line = raw.rstrip("\r\n")
        where = f"{path}:{number}"
        if line.startswith(("##FASTA", ">")) and not bed:
            return
        fields = [bare(field) for field in (line.split("\t") if "\t" in line else line.split())]
        if not any(fields) or is_browser_line(line):
            continue
        names_columns = "\t" in line or (len(fields) > 1 and fields[1].lower() in _STARTS)
        if line.startswith("#"):
            if names_columns and not begun:
                headers.append(fields)
            continue
        if not bed and _is_annotation(fields):
            attributes = fields[8] if len(fields) > 8 else ""
            contig = unquote(fields[0]) if "=" in attributes else fields[0]
            if "is_circular=true" in attributes.lower():
                circles.add(contig)
            yield IntervalLine(where, fields, GFF_COLUMNS, contig, True, contig in circles)
            continue
        if len(fields) < 3:
            raise InputFileError(
                f"{where}: {line[:60]!r}: wanted contig, start and end, separated by tabs; got {len(fields)} field(s)"
            )
        if not begun and fields[1].lower() in _STARTS:
            headers.append(fields)
            continue
        begun = True
        if len(fields) not in named:
            named[len(fields)] = _columns(len(fields), headers)
        columns = named[len(fields)]
        yield IntervalLine(where, fields, columns, fields[0])


def _is_annotation(fields: list[str]) -> bool:
    """Whether it has eight fields, or nine with the attributes, and a strand in the seventh."""
    return len(fields) in (8, 9) and fields[6] in _GFF_STRANDS and not fields[1].isdigit()


def _columns(count: int, headers: list[list[str]]) -> tuple[str, ...]:
    for header in reversed(headers):
        if len(header) == count and len(set(header)) == count:
            return (*BED_COLUMNS[:3], *header[3:])
    return (*BED_COLUMNS, *(f"column{i}" for i in range(7, count + 1)))[:count]
