"""Weighted places of a genome, from BED, GTF and GFF3 files and from its soft mask.

Windows whose middle base is in a place are drawn more or less often than others.

BED is 0-based and half-open (https://genome.ucsc.edu/FAQ/FAQformat.html#format1), GTF and GFF3 are 1-based and closed.
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.intervals import Intervals, WeightedPlaces
from dnagpt_fast.genome.regions import is_browser_line
from dnagpt_fast.input_files import InputFileError, text_lines

BED_COLUMNS = 3
GFF_COLUMNS = 9
STRANDS = ("+", "-", ".", "?")


class Place(NamedTuple):
    """contig: its number in the genome. where: file and line, for messages."""

    contig: int
    start_bp: int
    end_bp: int
    weight: float
    where: str


def read_places(
    genome: Genome, path: str, *, weight: float = 1.0, feature: str = "", weight_column: int = 0
) -> list[Place]:
    """The intervals of a BED, GTF or GFF3 file (plain or gzip; recognised by content), each with its weight.

    weight         of every interval, 0 or more
    feature        of GTF and GFF3: only lines of this type (third column); empty: every line
    weight_column  of BED: the column, counted from 1, that holds each interval's own weight; 0: `weight`

    Raises InputFileError (RegionError for a contig that the genome does not have) naming file and line; also where the
    file holds no interval of this feature.
    """
    found = []
    for where, fields in _lines(path):
        annotation = len(fields) == GFF_COLUMNS and fields[6] in STRANDS and not fields[1].isdigit()
        if annotation and weight_column:
            raise InputFileError(
                f"{where}: weight_column = {weight_column} is for BED; this is a line of GTF or GFF3"
            )
        if not annotation and feature:
            raise InputFileError(
                f"{where}: feature = {feature!r} is for GTF and GFF3; this is no line of either"
            )
        if not annotation and len(fields) < max(BED_COLUMNS, weight_column):
            raise InputFileError(
                f"{where}: {len(fields)} field(s): wanted {max(BED_COLUMNS, weight_column)} or more, parted by tabs"
            )
        if annotation and feature not in ("", fields[2]):
            continue
        texts = fields[3:5] if annotation else fields[1:3]
        try:
            start_bp, end_bp = (int(text) for text in texts)
            own = float(fields[weight_column - 1]) if weight_column else weight
        except ValueError:
            shown = [*texts, *([fields[weight_column - 1]] if weight_column else [])]
            raise InputFileError(f"{where}: {shown}: wanted numbers for start, end and weight") from None
        contig = genome.contigs.find(fields[0], where)
        start_bp -= annotation
        length = int(genome.lengths[contig])
        if not 0 <= start_bp < end_bp <= length:
            raise InputFileError(
                f"{where}: [{start_bp}, {end_bp}) of {fields[0]!r}: wanted 0 <= start < end <= {length}, its length; "
                "is this the genome that the intervals were made on?"
            )
        if not (own >= 0 and math.isfinite(own)):
            raise InputFileError(f"{where}: weight {own}: wanted a number of 0 or more")
        found.append(Place(contig, start_bp, end_bp, own, where))
    if not found:
        wanted = f"line of the feature {feature!r}" if feature else "interval"
        raise InputFileError(f"{path}: no {wanted} in it")
    return found


def disjoint(places: Iterable[Place]) -> WeightedPlaces:
    """The places in order, overlapping ones of one weight merged.

    Raises InputFileError, naming both lines, for an overlap of two weights.
    """
    merged: list[Place] = []
    for place in sorted(places):
        before = merged[-1] if merged else None
        if before is None or before.contig != place.contig or before.end_bp <= place.start_bp:
            merged.append(place)
        elif before.weight != place.weight:
            raise InputFileError(
                f"{before.where} and {place.where} overlap at base {place.start_bp} and weigh {before.weight:g} and "
                f"{place.weight:g}: give both the same weight, or cut one of them"
            )
        else:
            merged[-1] = before._replace(end_bp=max(before.end_bp, place.end_bp))
    columns = np.array([place[:3] for place in merged], dtype=np.int64).reshape(-1, 3)
    weight = np.array([place.weight for place in merged], dtype=np.float64)
    return WeightedPlaces(Intervals(columns[:, 0], columns[:, 1], columns[:, 2]), weight)


def soft_masked(genome: Genome, weight: float) -> WeightedPlaces:
    """The soft-masked runs of a genome (lower case in FASTA, mask blocks of .2bit), each with this weight."""
    blocks = [genome.mask_blocks(name) for name in genome.names]
    contig = np.repeat(np.arange(len(blocks), dtype=np.int64), [len(each) for each in blocks])
    both = np.concatenate([*blocks, np.zeros((0, 2), dtype=np.int64)])
    return WeightedPlaces(Intervals(contig, both[:, 0], both[:, 1]), np.full(len(both), float(weight)))


def _lines(path: str) -> Iterator[tuple[str, list[str]]]:
    """(file:line, fields) of the lines with intervals; comments, browser lines and the FASTA part of GFF3 left out."""
    for number, raw in text_lines(path):
        line = raw.rstrip("\r\n")
        if line.startswith("##FASTA") or line.startswith(">"):
            return
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
        if any(fields) and not line.startswith("#") and not is_browser_line(line):
            yield f"{path}:{number}", fields
