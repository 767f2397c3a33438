"""Reads FASTA with labels in the headers, and BED intervals of a genome with a label column."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dnagpt_fast.finetune.data.examples import (
    Examples,
    LabelError,
    Loci,
    clean_sequences,
    parse_label,
    parse_number,
)
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.interval_files import interval_lines
from dnagpt_fast.input_files import readable, text_lines
from dnagpt_fast.vocab import reverse_complement

_FIELD = re.compile(r"(?:^|[\s;|])([A-Za-z_]\w*)=([^\s;|]+)")


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
    """Records of a FASTA file, plain or gzip, with `key=value` fields in the headers, separated by blanks,
    `;` or `|`: `>site_12 label=donor split=train`.

    label_pattern  a regular expression over the whole header, whose first group is the label, in place of a
                   field
    labelled       False: labels are not read
    Raises InputFileError (LabelError for a record) that names file and record.
    """

    path = Path(path)
    pattern = _pattern(label_pattern)
    where, texts, labels, splits, numbers, names = [], [], [], [], [], []
    for i, (header, sequence) in enumerate(_records(path)):
        place = f"{path}: record {i} ({header.split(maxsplit=1)[0]})"
        fields = dict(_FIELD.findall(header))
        if labelled:
            found = pattern.search(header) if pattern else None
            label = found[1] if found else (None if pattern else fields.get(label_column))
            if label is None:
                wanted = f"a match of {label_pattern!r}" if pattern else f"a field {label_column}=..."
                raise LabelError(f"{place}: header {header!r} has no label: wanted {wanted}")
            labels.append(parse_label(label, place, label_column))
        for name in number_columns:
            if name not in fields:
                raise LabelError(f"{place}: header {header!r} has no field {name}=...")
        where.append(place)
        names.append(header.split(maxsplit=1)[0])
        texts.append(sequence)
        splits.append(fields.get(split_column))
        numbers.append([parse_number(fields[name], place, name) for name in number_columns])
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
        label=labels if labelled else None,
        numbers=np.array(numbers, np.float64).reshape(len(where), len(number_columns)),
        number_names=tuple(number_columns),
        split=[split or "" for split in splits] if all(splits) else None,
        name=names,
    )


def _pattern(text: str) -> re.Pattern[str] | None:
    """The compiled pattern. Raises LabelError for an invalid regular expression, or one without a group."""
    if not text:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise LabelError(f"data.label_pattern = {text!r} is not a regular expression: {error}") from error
    if pattern.groups < 1:
        raise LabelError(f"data.label_pattern = {text!r} has no group: put the label in parentheses")
    return pattern


def _records(path: Path) -> Iterator[tuple[str, str]]:
    """(header without `>`, sequence) of each record; blanks and blank lines are ignored."""
    header, pieces = "", list[str]()
    for number, raw in text_lines(path):
        line = raw.strip()
        if line.startswith(">"):
            if header:
                yield header, "".join(pieces)
            header, pieces = line[1:].strip(), []
            if not header:
                raise LabelError(f"{path}:{number}: a header without a name: wanted '>name'")
        elif line and not header:
            raise LabelError(
                f"{path}:{number}: {line[:20]!r} before the first '>' line: this is no FASTA file"
            )
        else:
            pieces.append("".join(line.split()))
    if header:
        yield header, "".join(pieces)


def read_bed(
    path: str | Path,
    genome: Genome,
    *,
    label_column: str = "label",
    number_columns: Sequence[str] = (),
    split_column: str = "split",
    labelled: bool = True,
) -> Examples:
    """BED intervals (0-based, half-open) with bases from the genome; `-` intervals are reverse-complemented.

    Columns are contig, start_bp, end_bp, name, score, strand and, from the seventh on, `column7` ..., or what a header
    calls them (genome/interval_files.py). label_column "label" is BED's own `name` where no column is called so.
    labelled False: labels are not read.
    Raises InputFileError (LabelError, RegionError for an interval) naming file and line.
    """
    path = Path(path)
    where, labels, splits, numbers, contigs, strands = [], [], [], [], [], []
    bounds, texts, called = [], [], []
    names: tuple[str, ...] = ()
    for line in interval_lines(path, bed=True):
        place = line.where
        if not names:
            names = line.columns
            if label_column == "label" and label_column not in names:
                label_column = "name"
        if len(line.fields) != len(names):
            raise LabelError(f"{place}: {len(line.fields)} fields, but the lines before have {len(names)}")
        for column in (*((label_column,) if labelled else ()), *number_columns):
            if column not in names:
                raise LabelError(f"{place}: no {column!r}; the columns are {', '.join(names)}")
        number, start_bp, end_bp = line.place(genome)
        contig, strand = genome.names[number], line.strand()
        bases = genome.sequence(contig, start_bp, end_bp)
        where.append(place)
        called.append(readable(line.column("name"), place, "name"))
        texts.append(reverse_complement(bases) if strand == "-" else bases)
        if labelled:
            labels.append(parse_label(line.column(label_column), place, label_column))
        splits.append(line.column(split_column))
        numbers.append([parse_number(line.column(name), place, name) for name in number_columns])
        contigs.append(contig)
        strands.append(strand)
        bounds.append((start_bp, end_bp))
    if not where:
        raise LabelError(f"{path}: no intervals")
    at = np.array(bounds, np.int64)
    return Examples(
        path=path,
        where=where,
        sequence=texts,
        label=labels if labelled else None,
        numbers=np.array(numbers, np.float64).reshape(len(where), len(number_columns)),
        number_names=tuple(number_columns),
        split=splits if split_column in names else None,
        loci=Loci(contigs, at[:, 0].copy(), at[:, 1].copy(), strands),
        name=called if "name" in names and not (labelled and label_column == "name") else None,
    )
