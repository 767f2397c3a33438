"""VCF (https://samtools.github.io/hts-specs/VCFv4.3.pdf) as lines: read record by record, written with more INFO.

A record keeps its original text, so that every field except INFO stays the same byte for byte; libraries that parse and
print records may format numbers differently. htslib (pysam) converts BCF to text and back, compresses and indexes.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pysam
import pysam.bcftools

from dnagpt_fast.input_files import check_file, is_bcf, text_lines
from dnagpt_fast.output_files import is_stream, whole, whole_file
from dnagpt_fast.variants.places import VariantError

LONGEST_IN_TBI = 1 << 29
"""A contig of this length or more needs a .csi index."""
ENDINGS = (".vcf", ".vcf.gz", ".bcf")
_CONTIG = re.compile(r"##contig=<(.*)>\s*$")
_COLUMNS = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]


@dataclass(frozen=True)
class Record:
    """One record. number: of its line in the file, or of the record in BCF; start_bp: POS - 1."""

    number: int
    text: str
    contig: str
    start_bp: int
    reference: str
    alternatives: tuple[str, ...]


class VcfFile:
    """A VCF or BCF file, recognised by its first bytes; `records` can be iterated several times.

    header       the lines before the records, without line ends; the last one has the column names
    contigs      contig -> its length in the header, or None
    Raises InputFileError (most often VariantError), which names the file and the line, for a file that is no VCF.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_file(self.path)
        self.is_bcf = is_bcf(self.path)
        self.header: list[str] = []
        for line in self._lines():
            if not line.startswith("#"):
                break
            self.header.append(line)
            if line.startswith("#CHROM"):
                break
        self._check_header()
        self.columns = len(self.header[-1].split("\t"))
        self.contigs: dict[str, int | None] = {}
        for line in self.header:
            if match := _CONTIG.match(line):
                fields = dict(part.split("=", 1) for part in match[1].split(",") if "=" in part)
                length = fields.get("length", "")
                self.contigs[fields.get("ID", "")] = int(length) if length.isdigit() else None

    def records(self) -> Iterator[Record]:
        """Raises VariantError for a line that is no record."""
        what = "record" if self.is_bcf else "line"
        for number, line in enumerate(self._lines(), 1):
            if number <= len(self.header):
                continue
            if not line:
                continue
            at = f"{self.path}: {what} {number - (len(self.header) if self.is_bcf else 0)}"
            fields = line.split("\t", 8)
            columns = line.count("\t") + 1
            if columns != self.columns:
                raise VariantError(f"{at}: {columns} tab-separated columns: the header has {self.columns}")
            if not fields[1].isdigit():
                raise VariantError(f"{at}: POS is {fields[1]!r}: wanted a number")
            if not fields[3].isalpha() or not fields[4]:
                raise VariantError(f"{at}: REF is {fields[3]!r}, ALT {fields[4]!r}: wanted bases")
            alternatives = () if fields[4] == "." else tuple(fields[4].split(","))
            yield Record(number, line, fields[0], int(fields[1]) - 1, fields[3], alternatives)

    def where(self, record: Record) -> str:
        if self.is_bcf:
            return f"{self.path}: record {record.number - len(self.header)}"
        return f"{self.path}: line {record.number}"

    def _lines(self) -> Iterator[str]:
        """All lines without their ends."""
        if self.is_bcf:
            yield from self._lines_of_bcf()
            return
        for _, line in text_lines(self.path):
            yield line.rstrip("\r\n")

    def _lines_of_bcf(self) -> Iterator[str]:
        verbosity = pysam.set_verbosity(0)
        try:
            with pysam.VariantFile(str(self.path)) as file:
                yield from str(file.header).splitlines()
                records = iter(file)
                number = 0
                while (record := next(records, None)) is not None:
                    number += 1
                    yield str(record).rstrip("\n")
        except (OSError, ValueError, NotImplementedError) as error:
            raise VariantError(f"{self.path} cannot be read as BCF: {error}") from error
        finally:
            pysam.set_verbosity(verbosity)

    def _check_header(self) -> None:
        if not self.header or not self.header[0].startswith("##fileformat=VCF"):
            first = self.header[0][:40] if self.header else "no header"
            raise VariantError(f"{self.path}: line 1: {first!r}: a VCF begins with ##fileformat=VCF...")
        columns = self.header[-1].split("\t")
        if columns[:8] != _COLUMNS:
            raise VariantError(
                f"{self.path}: line {len(self.header)}: wanted the column names {' '.join(_COLUMNS)}, separated by tabs"
            )


def with_info(text: str, tags: dict[str, str], old: frozenset[str] = frozenset()) -> str:
    """A record's line with `tags` added to its INFO column, after the tags of `old` are removed."""
    fields = text.split("\t", 8)
    kept = [part for part in fields[7].split(";") if part != "." and part.split("=", 1)[0] not in old]
    fields[7] = ";".join([*kept, *(f"{name}={value}" for name, value in tags.items())]) or "."
    return "\t".join(fields)


def write_vcf(path: str | Path, lines: Iterable[str], *, indexed: bool, longest_contig_bp: int) -> None:
    """Writes lines as .vcf, .vcf.gz (BGZF) or .bcf, by the name's ending, completely or not at all; with `indexed` also
    the index of a compressed file. A stream gets plain text. Raises ValueError for another ending."""
    if is_stream(path):
        with whole_file(path) as stream:
            _write_text(stream, lines)
        return
    ending = ending_of(path)
    if ending == ".vcf":
        with whole_file(path) as file:
            _write_text(file, lines)
        return
    csi = ending == ".bcf" or longest_contig_bp >= LONGEST_IN_TBI
    with ExitStack() as stack:
        target = stack.enter_context(whole(path))
        index = stack.enter_context(whole(f"{path}{'.csi' if csi else '.tbi'}")) if indexed else None
        if ending == ".vcf.gz":
            with pysam.BGZFile(str(target), "wb", None) as compressed:
                _write_text(compressed, lines)
            if index is not None:
                pysam.tabix_index(
                    str(target), preset="vcf", csi=csi, index=str(index), keep_original=True, force=True
                )
            return
        text = target.with_name("text.vcf.gz")
        with pysam.BGZFile(str(text), "wb", None) as compressed:
            _write_text(compressed, lines)
        pysam.bcftools.view("-Ob", "-o", str(target), "--no-version", str(text), catch_stdout=False)
        text.unlink()
        if index is not None:
            pysam.bcftools.index("-f", "-o", str(index), str(target), catch_stdout=False)


def ending_of(path: str | Path) -> str:
    """.vcf, .vcf.gz or .bcf. Raises ValueError for another ending."""
    found = next((ending for ending in ENDINGS if str(path).endswith(ending)), None)
    if found is None:
        raise ValueError(f"{path}: wanted a name that ends in {', '.join(ENDINGS)}, .tsv or .parquet")
    return found


def _write_text(file: BinaryIO | pysam.BGZFile, lines: Iterable[str]) -> None:
    for line in lines:
        file.write(f"{line}\n".encode("utf-8", "surrogateescape"))
