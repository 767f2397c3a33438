"""FASTA with labels in the headers, and BED intervals of a genome with a label column."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pysam

from dnagpt_fast.finetune.data.examples import Examples, LabelError, Loci, clean_sequences, parse_number
from dnagpt_fast.finetune.data.tables import open_text
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.regions import find_contig
from dnagpt_fast.vocab import reverse_complement

logger = logging.getLogger(__name__)

_FIELD = re.compile(r"(?:^|[\s;|])([A-Za-z_]\w*)=([^\s;|]+)")
_BED_NAMES = ("contig", "start_bp", "end_bp", "name", "score", "strand")


def read_labelled_fasta(
    path: str | Path,
    *,
    label_column: str = "label",
    label_pattern: str = "",
    number_columns: Sequence[str] = (),
    split_column: str = "split",
    on_lower_case: str = "upper",
    labelled: bool = True,
) -> Examples:
    """Records of a FASTA file, plain or gzip, whose headers hold `key=value` fields parted by blanks, `;` or `|`:
    `>site_12 label=donor split=train`.

    label_pattern  instead: a regular expression over the whole header, whose first group is the label
    Raises LabelError naming file and record.
    """
    path = Path(path)
    pattern = re.compile(label_pattern) if label_pattern else None
    if pattern and pattern.groups < 1:
        raise LabelError(f"data.label_pattern = {label_pattern!r} has no group: put the label in parentheses")
    where, texts, labels, splits, numbers = [], [], [], [], []
    try:
        with pysam.FastxFile(str(path)) as file:
            for i, record in enumerate(file):
                header = f"{record.name} {record.comment or ''}".strip()
                place = f"{path}: record {i} ({record.name})"
                fields = dict(_FIELD.findall(header))
                found = pattern.search(header) if pattern else None
                label = found[1] if found else (None if pattern else fields.get(label_column))
                if label is None and labelled:
                    wanted = f"a match of {label_pattern!r}" if pattern else f"a field {label_column}=..."
                    raise LabelError(f"{place}: header {header!r} has no label: wanted {wanted}")
                for name in number_columns:
                    if name not in fields:
                        raise LabelError(f"{place}: header {header!r} has no field {name}=...")
                where.append(place)
                texts.append(record.sequence or "")
                labels.append(label)
                splits.append(fields.get(split_column))
                numbers.append([parse_number(fields[name], place, name) for name in number_columns])
    except OSError as error:
        raise LabelError(f"{path} cannot be read as FASTA: {error}") from error
    if not where:
        raise LabelError(f"{path}: no FASTA records")
    if any(splits) and not all(splits):
        raise LabelError(
            f"{where[splits.index(None)]}: no field {split_column}=..., which other records have"
        )
    return Examples(
        path=path,
        where=where,
        sequence=clean_sequences(texts, where, on_lower_case),
        label=[label or "" for label in labels] if all(label is not None for label in labels) else None,
        numbers=np.array(numbers, np.float64).reshape(len(where), len(number_columns)),
        number_names=tuple(number_columns),
        split=[split or "" for split in splits] if all(splits) else None,
    )


def read_bed(
    path: str | Path,
    genome: Genome,
    *,
    label_column: str = "name",
    number_columns: Sequence[str] = (),
    split_column: str = "split",
    labelled: bool = True,
) -> Examples:
    """BED intervals (0-based, half-open) with their bases from the genome; `-` intervals are reverse-complemented.

    Columns are contig, start_bp, end_bp, name, score, strand, and, from the seventh on, whatever a first line that
    begins with `#` calls them (it then names all of them, in any order from the fourth on) or `column7` ... otherwise.
    Raises LabelError naming file and line.
    """
    path = Path(path)
    where, labels, splits, numbers, contigs, strands = [], [], [], [], [], []
    bounds, texts = [], []
    names: list[str] = []
    with open_text(path) as file:
        for number, raw in enumerate(file, 1):
            line = raw.rstrip("\r\n")
            place = f"{path}:{number}"
            if line.startswith("#"):
                if number == 1:
                    names = line.lstrip("# ").split("\t")
                    names[:3] = _BED_NAMES[:3]
                continue
            if not line or line.startswith(("track", "browser")):
                continue
            fields = line.split("\t")
            if len(fields) < 3:
                raise LabelError(f"{place}: {len(fields)} tab-separated field(s): BED has three or more")
            if not names:
                names = [*_BED_NAMES, *(f"column{i}" for i in range(7, len(fields) + 1))][: len(fields)]
            if len(fields) != len(names):
                raise LabelError(f"{place}: {len(fields)} fields, where {len(names)} came before")
            row = dict(zip(names, fields, strict=True))
            for column in (*((label_column,) if labelled else ()), *number_columns):
                if not row.get(column):
                    raise LabelError(f"{place}: no {column!r}; the columns are {', '.join(names)}")
            contig = find_contig(genome, row["contig"], place)
            start_bp, end_bp = _bounds(row, genome, contig, place)
            strand = row.get("strand", "+")
            if strand not in ("+", "-", "."):
                raise LabelError(f"{place}: strand {strand!r}: wanted +, - or . (taken as +)")
            bases = genome.sequence(contig, start_bp, end_bp)
            where.append(place)
            texts.append(reverse_complement(bases) if strand == "-" else bases)
            labels.append(row.get(label_column, ""))
            splits.append(row.get(split_column, ""))
            numbers.append([parse_number(row[name], place, name) for name in number_columns])
            contigs.append(contig)
            strands.append("-" if strand == "-" else "+")
            bounds.append((start_bp, end_bp))
    if not where:
        raise LabelError(f"{path}: no intervals")
    at = np.array(bounds, np.int64)
    return Examples(
        path=path,
        where=where,
        sequence=texts,
        label=labels if label_column in names else None,
        numbers=np.array(numbers, np.float64).reshape(len(where), len(number_columns)),
        number_names=tuple(number_columns),
        split=splits if split_column in names else None,
        loci=Loci(contigs, at[:, 0].copy(), at[:, 1].copy(), strands),
    )


def _bounds(row: dict[str, str], genome: Genome, contig: str, place: str) -> tuple[int, int]:
    try:
        start_bp, end_bp = int(row["start_bp"]), int(row["end_bp"])
    except ValueError:
        raise LabelError(f"{place}: [{row['start_bp']!r}, {row['end_bp']!r}): wanted integers") from None
    length = int(genome.lengths[genome.names.index(contig)])
    if not 0 <= start_bp < end_bp <= length:
        raise LabelError(
            f"{place}: [{start_bp}, {end_bp}) of {contig!r}: wanted 0 <= start < end <= {length}, its length; is this "
            f"the genome that the intervals were made on?"
        )
    return start_bp, end_bp
