"""CSV, TSV and parquet tables of labelled sequences."""

import csv
import gzip
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from dnagpt_fast.extras import need
from dnagpt_fast.finetune.data.examples import Examples, LabelError, Loci, clean_sequences, parse_number
from dnagpt_fast.output_files import is_stream, whole

LOCUS_COLUMNS = (("contig", "chrom"), ("start_bp", "start"), ("end_bp", "end"), ("strand",))


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
    """Rows of a .csv, .tsv or .txt (also .gz; told apart by name) or .parquet file with a header.

    Columns contig/chrom, start_bp/start, end_bp/end and strand, where all but strand are there, give the loci
    (0-based, half-open). The split column is optional. labelled False: the label column may be absent.
    Raises LabelError naming file and line, ImportError where parquet lacks pyarrow.
    """
    path = Path(path)
    rows = list(_parquet_rows(path) if path.suffix == ".parquet" else _text_rows(path))
    if not rows:
        raise LabelError(f"{path}: no rows below the header")
    header = rows[0][1].keys()
    for column in (sequence_column, *((label_column,) if labelled else ()), *number_columns):
        if column not in header:
            raise LabelError(f"{path}:1: no column {column!r}; the columns are {', '.join(header)}")
    where = [place for place, _ in rows]
    if label_column in header:
        for place, row in rows:
            if not row[label_column]:
                raise LabelError(f"{place}: {label_column} is empty: give a label or remove the row")
    numbers = [[parse_number(row[name], place, name) for name in number_columns] for place, row in rows]
    return Examples(
        path=path,
        where=where,
        sequence=clean_sequences([row[sequence_column] for _, row in rows], where, on_lower_case),
        label=[row[label_column] for _, row in rows] if label_column in header else None,
        numbers=np.array(numbers, np.float64).reshape(len(rows), len(number_columns)),
        number_names=tuple(number_columns),
        split=[row[split_column] for _, row in rows] if split_column in header else None,
        loci=_loci(rows),
    )


def open_text(path: Path) -> io.TextIOBase:
    """The file as text, through gzip where its name ends in .gz. Universal newlines."""
    if path.suffix == ".gz":
        return cast(io.TextIOBase, gzip.open(path, "rt", encoding="utf-8", newline=""))
    return cast(io.TextIOBase, open(path, encoding="utf-8", newline=""))


def delimiter(path: str | Path) -> str:
    """Of a table that is to be written; a tabulator for a stream.

    Raises ValueError for a name that ends neither in .tsv nor in .csv."""
    kinds = {".tsv": "\t", ".csv": ","}
    if is_stream(path):
        return "\t"
    if Path(path).suffix not in kinds:
        raise ValueError(f"{path}: tables are written as .tsv or .csv: end its name in one of them")
    return kinds[Path(path).suffix]


def write_rows(path: str | Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A .csv or .tsv file, whole or not at all; its SHA-256. Raises ValueError for another name."""
    parted_by = delimiter(path)
    with whole(path) as temporary:
        with open(temporary, "w", newline="") as file:
            writer = csv.writer(file, delimiter=parted_by, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
        return hashlib.sha256(temporary.read_bytes()).hexdigest()


def _text_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    with open_text(path) as file:
        reader = csv.reader(file, delimiter="," if kind == ".csv" else "\t", strict=True)
        try:
            header = next(reader, None)
            if header is None:
                raise LabelError(f"{path}: the file is empty")
            twice = {name for name in header if header.count(name) > 1}
            if twice:
                raise LabelError(f"{path}:1: column {sorted(twice)[0]!r} comes twice")
            for row in reader:
                place = f"{path}:{reader.line_num}"
                if len(row) != len(header):
                    raise LabelError(
                        f"{place}: {len(row)} field(s), the header has {len(header)}: "
                        f"{'tab' if reader.dialect.delimiter != ',' else 'comma'}-separated as the name says?"
                    )
                yield place, dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise LabelError(f"{path}:{reader.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise LabelError(f"{path}: no UTF-8 text: {error}") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    parquet = need("pyarrow.parquet")
    try:
        table = parquet.read_table(path)
    except need("pyarrow").ArrowInvalid as error:
        raise LabelError(f"{path} cannot be read as parquet: {error}") from error
    for i, row in enumerate(table.to_pylist()):
        yield f"{path}: row {i}", {name: "" if value is None else str(value) for name, value in row.items()}


def _loci(rows: list[tuple[str, dict[str, str]]]) -> Loci | None:
    header = rows[0][1].keys()
    contig, start, end, strand = (next((n for n in names if n in header), "") for names in LOCUS_COLUMNS)
    if not (contig and start and end):
        return None
    bounds = np.empty((len(rows), 2), np.int64)
    strands = []
    for i, (place, row) in enumerate(rows):
        try:
            bounds[i] = int(row[start]), int(row[end])
        except ValueError:
            raise LabelError(
                f"{place}: {start}, {end} = {row[start]!r}, {row[end]!r}: wanted integers"
            ) from None
        if not 0 <= bounds[i, 0] < bounds[i, 1]:
            raise LabelError(
                f"{place}: [{row[start]}, {row[end]}): wanted 0 <= {start} < {end}, 0-based half-open"
            )
        strands.append(row[strand] if strand else "+")
        if strands[-1] not in ("+", "-"):
            raise LabelError(f"{place}: strand {strands[-1]!r}: wanted + or -")
    return Loci([row[contig] for _, row in rows], bounds[:, 0].copy(), bounds[:, 1].copy(), strands)
