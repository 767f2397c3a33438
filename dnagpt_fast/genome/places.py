"""Weighted places of a genome, from BED, GTF and GFF3 files and from its soft mask.

Windows whose middle base is in a place are drawn more or less often than others.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.interval_files import IntervalLine, interval_lines
from dnagpt_fast.genome.intervals import Intervals, WeightedPlaces
from dnagpt_fast.input_files import InputFileError


class Place(NamedTuple):
    """A weighted interval. contig: its number in the genome. where: file and line, for messages."""

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
    feature        GTF and GFF3: only lines of this type (third column); empty: all lines
    weight_column  BED: the column, counted from 1, with the weight of each interval; 0: use `weight`

    Raises InputFileError (RegionError for a contig that the genome does not have) that names file and line;
    also if the file has no interval of this feature.
    """
    found = []
    for line in interval_lines(path):
        if line.is_annotation and weight_column:
            raise InputFileError(
                f"{line.where}: weight_column = {weight_column} is for BED; this is a line of GTF or GFF3"
            )
        if not line.is_annotation and feature:
            raise InputFileError(
                f"{line.where}: feature = {feature!r} is for GTF and GFF3; this line is neither"
            )
        if line.is_annotation and feature not in ("", line.column("feature")):
            continue
        own = _weight(line, weight_column) if weight_column else weight
        found += [Place(*place, own, line.where) for place in line.places(genome)]
    if not found:
        wanted = f"line of the feature {feature!r}" if feature else "interval"
        raise InputFileError(f"{path}: no {wanted} in it")
    return found


def disjoint(places: Iterable[Place]) -> WeightedPlaces:
    """The places in order; overlapping places of the same weight are merged.

    Raises InputFileError that names both lines where places of different weights overlap.
    """
    merged: list[Place] = []
    for place in sorted(places):
        before = merged[-1] if merged else None
        if before is None or before.contig != place.contig or before.end_bp <= place.start_bp:
            merged.append(place)
        elif before.weight != place.weight:
            raise InputFileError(
                f"{before.where} and {place.where} overlap at base {place.start_bp} with weights {before.weight:g} and "
                f"{place.weight:g}: give both the same weight, or shorten one of them"
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


def _weight(line: IntervalLine, column: int) -> float:
    """The number in this column, counted from 1. Raises InputFileError for what is no weight."""
    if len(line.fields) < column:
        raise InputFileError(
            f"{line.where}: {len(line.fields)} field(s): wanted {column} or more, parted by tabs"
        )
    text = line.fields[column - 1]
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (weight >= 0 and math.isfinite(weight)):
        raise InputFileError(f"{line.where}: weight {text!r}: wanted a number of 0 or more")
    return weight
