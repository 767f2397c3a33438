"""Reads and writes CSV and TSV tables, and reads parquet tables, of labelled sequences."""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dnagpt_fast.extras import need
from dnagpt_fast.finetune.data.examples import (
    Examples,
    LabelError,
    Loci,
    check_span,
    clean_sequences,
    parse_label,
    parse_number,
)
from dnagpt_fast.input_files import bare, inner_suffix, parse_integer, readable, text_lines
from dnagpt_fast.output_files import is_stream, whole

LOCUS_COLUMNS = (("contig", "chrom"), ("start_bp", "start"), ("end_bp", "end"), ("strand",))
NAME_COLUMNS = ("name", "id")
LONGEST_FIELD = (1 << 31) - 1  # csv's default limit is 131,072 characters; many sequences are longer

Row = tuple[str, dict[str, str]]
"""Place in the file, and the fields by column name, without blanks at their ends."""


def read_table(
    path: str | Path,
    *,
    sequence_column: str = "sequence",
    label_column: str = "label",
    number_columns: Sequence[str] = (),
    split_column: str = "split",
    on_lower_case: str = "upper",
    labelled: bool = True,
) -> Examples:
    """Rows of a .csv (commas), .tsv or .txt (tabs) or .parquet file with a header; text may be compressed by
    gzip.

    Blank lines, blanks around fields and a byte-order mark are ignored. Columns contig/chrom, start_bp/start,
    end_bp/end and, optionally, strand give the loci (0-based, half-open). The split column is optional.
    labelled False: labels are not read. Raises InputFileError (LabelError for a row) that names file and
    line, ImportError for parquet without pyarrow.
    """
    path = Path(path)
    rows = list(_parquet_rows(path) if inner_suffix(path) == ".parquet" else _text_rows(path))
    if not rows:
        raise LabelError(f"{path}: no rows below the header")
    header = rows[0][1].keys()
    for column in (sequence_column, *((label_column,) if labelled else ()), *number_columns):
        if column not in header:
            raise LabelError(
                f"{path}:1: no column {column!r}; the columns are {', '.join(header)}"
                + (
                    "; wanted commas or tabs between them"
                    if len(header) == 1 and ";" in "".join(header)
                    else ""
                )
            )
    where = [place for place, _ in rows]
    numbers = [[parse_number(row[name], place, name) for name in number_columns] for place, row in rows]
    used = {sequence_column, label_column, split_column, *number_columns}
    named = next((name for name in NAME_COLUMNS if name in header and name not in used), None)
    return Examples(
        path=path,
        where=where,
        sequence=clean_sequences([row[sequence_column] for _, row in rows], where, on_lower_case),
        label=[parse_label(row[label_column], place, label_column) for place, row in rows]
        if labelled
        else None,
        numbers=np.array(numbers, np.float64).reshape(len(rows), len(number_columns)),
        number_names=tuple(number_columns),
        split=[row[split_column] for _, row in rows] if split_column in header else None,
        loci=_loci(rows),
        name=[readable(row[named], place, named) for place, row in rows] if named else None,
    )


def delimiter(path: str | Path) -> str:
    """The delimiter of a table to be written, by suffix; a tab for a stream.

    Raises ValueError for a name that ends neither in .tsv nor in .csv."""
    kinds = {".tsv": "\t", ".csv": ","}
    if is_stream(path):
        return "\t"
    suffix = Path(path).suffix.lower()
    if suffix not in kinds:
        raise ValueError(f"{path}: tables are written as .tsv or .csv: give a name that ends in one of them")
    return kinds[suffix]


def write_rows(path: str | Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Writes a .csv or .tsv file in UTF-8, completely or not at all; returns its SHA-256. Raises ValueError
    for another suffix."""
    parted_by = delimiter(path)
    with whole(path) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=parted_by, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
        return hashlib.sha256(temporary.read_bytes()).hexdigest()


def _text_rows(path: Path) -> Iterator[Row]:
    parted_by = "," if inner_suffix(path) == ".csv" else "\t"
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader((line for _, line in text_lines(path)), delimiter=parted_by, strict=True)
    header: list[str] = []
    try:
        for row in reader:
            place = f"{path}:{reader.line_num}"
            fields = [bare(field) for field in row]
            if not any(fields):
                continue
            if not header:
                header = [readable(name, place, "column name") for name in fields]
                twice = {name for name in header if header.count(name) > 1}
                if twice:
                    raise LabelError(f"{place}: column {sorted(twice)[0]!r} appears twice")
                continue
            if len(fields) != len(header):
                raise LabelError(
                    f"{place}: {len(fields)} field(s), the header has {len(header)}: "
                    f"wanted {'tab' if parted_by != ',' else 'comma'}-separated fields, by the file's suffix"
                )
            yield place, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise LabelError(f"{path}:{reader.line_num}: {error}") from error
    if not header:
        raise LabelError(f"{path}: the file is empty")


def _parquet_rows(path: Path) -> Iterator[Row]:
    parquet, lib = need("pyarrow.parquet"), need("pyarrow")
    try:
        table = parquet.read_table(path).to_pylist()
    except (lib.ArrowException, OSError, ValueError) as error:
        raise LabelError(f"{path} cannot be read as parquet: {error}") from error
    for i, row in enumerate(table):
        fields = {name: "" if value is None else bare(str(value)) for name, value in row.items()}
        yield f"{path}: row {i}", fields


def _loci(rows: list[Row]) -> Loci | None:
    header = rows[0][1].keys()
    contig, start, end, strand = (next((n for n in names if n in header), "") for names in LOCUS_COLUMNS)
    if not (contig and start and end):
        return None
    bounds = np.empty((len(rows), 2), np.int64)
    strands = []
    for i, (place, row) in enumerate(rows):
        if not row[contig]:
            raise LabelError(
                f"{place}: {contig} is empty: give it, or leave out the three columns of the place"
            )
        readable(row[contig], place, contig)
        bounds[i] = check_span(
            parse_integer(row[start], place, start), parse_integer(row[end], place, end), place
        )
        said = row[strand] if strand else "."
        if said not in ("+", "-", "."):
            raise LabelError(f"{place}: strand {said!r}: wanted +, - or . (taken as +)")
        strands.append("-" if said == "-" else "+")
    return Loci([row[contig] for _, row in rows], bounds[:, 0].copy(), bounds[:, 1].copy(), strands)
