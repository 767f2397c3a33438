"""Gene annotation: UCSC refGene tables, GTF and GFF3, read into transcripts.

Formats: https://genome.ucsc.edu/cgi-bin/hgTables (genePredExt; 0-based half-open),
https://mblab.wustl.edu/GTF22.html and https://github.com/The-Sequence-Ontology/Specifications (both 1-based, closed).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.data.tables import open_text

_GTF_FIELD = re.compile(r'(\w+) "([^"]*)"')
_TRANSCRIPT_KINDS = frozenset(
    {"mRNA", "transcript", "ncRNA", "lnc_RNA", "primary_transcript", "rRNA", "tRNA"}
)


@dataclass(frozen=True)
class Transcript:
    """One transcript; coordinates 0-based, half-open, on the forward strand.

    exons           int64 (n, 2), sorted, disjoint
    coding_bp       first and last coding base as [start_bp, end_bp), None for a non-coding one
    start_complete  the annotation knows the true start of the coding part (the 5' end in the transcript's sense)
    """

    name: str
    gene: str
    contig: str
    strand: str
    exons: np.ndarray
    coding_bp: tuple[int, int] | None
    start_complete: bool
    where: str

    @property
    def length_bp(self) -> int:
        """Bases of the spliced transcript."""
        return int((self.exons[:, 1] - self.exons[:, 0]).sum())


def read_annotation(path: str | Path) -> list[Transcript]:
    """The transcripts of a refGene table (with or without the bin column), a GTF or a GFF3 file, plain or .gz.

    Told apart by content. Raises LabelError naming file and line.
    """
    path = Path(path)
    with open_text(path) as file:
        try:
            first = next((line for line in file if line.strip() and not line.startswith("#")), None)
        except UnicodeDecodeError as error:
            raise LabelError(f"{path}: no UTF-8 text: {error}") from error
    if first is None:
        raise LabelError(f"{path}: no annotation in it")
    fields = first.rstrip("\r\n").split("\t")
    if len(fields) == 9 and fields[6] in ("+", "-", ".", "?"):
        found = _read_gtf(path) if _GTF_FIELD.search(fields[8]) else _read_gff(path)
    elif len(fields) in (10, 11, 15, 16):
        found = list(_read_refgene(path))
    else:
        raise LabelError(
            f"{path}: {len(fields)} tab-separated fields: neither GTF/GFF3 (9) nor a refGene table (10, 11, 15, 16)"
        )
    if not found:
        raise LabelError(f"{path}: no transcripts with exons in it")
    return found


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.startswith("##FASTA"):
                return
            if line.strip() and not line.startswith("#"):
                yield f"{path}:{number}", line.rstrip("\r\n").split("\t")


def _exons(starts: list[int], ends: list[int], where: str) -> np.ndarray:
    exons = np.stack([np.array(starts, np.int64), np.array(ends, np.int64)], axis=1)
    exons = exons[np.argsort(exons[:, 0], kind="stable")]
    if (exons[:, 0] >= exons[:, 1]).any() or (exons[1:, 0] < exons[:-1, 1]).any() or exons[0, 0] < 0:
        raise LabelError(f"{where}: exons {exons.tolist()}: wanted start < end, without overlaps")
    return exons


def _read_refgene(path: Path) -> Iterator[Transcript]:
    for where, fields in _lines(path):
        if len(fields) in (11, 16):
            fields = fields[1:]  # without the bin column
        if len(fields) not in (10, 15) or fields[2] not in ("+", "-"):
            raise LabelError(f"{where}: no refGene row: wanted 10, 11, 15 or 16 fields, strand + or -")
        name, contig, strand = fields[:3]
        try:
            coding = int(fields[5]), int(fields[6])
            starts, ends = ([int(x) for x in text.split(",") if x] for text in (fields[8], fields[9]))
            count = int(fields[7])
        except ValueError as error:
            raise LabelError(f"{where}: {error}") from None
        if not len(starts) == len(ends) == count or not count:
            raise LabelError(
                f"{where}: {len(starts)} exon starts, {len(ends)} ends, exonCount {count}: wanted the same"
            )
        status = fields[12:14] if len(fields) == 15 else ["cmpl", "cmpl"]
        yield Transcript(
            name=name,
            gene=fields[11] if len(fields) == 15 else name,
            contig=contig,
            strand=strand,
            exons=_exons(starts, ends, where),
            coding_bp=coding if coding[0] < coding[1] else None,
            start_complete=status[0 if strand == "+" else 1] == "cmpl",
            where=where,
        )


@dataclass
class _Parts:
    """What the lines of one GTF/GFF3 transcript have given so far."""

    where: str
    contig: str = ""
    strand: str = ""
    gene: str = ""
    exons: list[tuple[int, int]] = field(default_factory=list)
    coding: list[tuple[int, int]] = field(default_factory=list)
    partial: bool = False

    def add(self, where: str, fields: list[str], span: tuple[int, int]) -> None:
        if self.contig and (fields[0], fields[6]) != (self.contig, self.strand):
            raise LabelError(
                f"{where}: on {fields[0]} {fields[6]}, its transcript is on {self.contig} {self.strand}"
            )
        self.contig, self.strand = fields[0], fields[6]
        (self.exons if fields[2] == "exon" else self.coding).append(span)


def _span(fields: list[str], where: str) -> tuple[int, int]:
    if len(fields) != 9:
        raise LabelError(f"{where}: {len(fields)} tab-separated fields: wanted 9")
    try:
        start, end = int(fields[3]), int(fields[4])
    except ValueError:
        raise LabelError(f"{where}: {fields[3]!r}..{fields[4]!r}: wanted integers") from None
    if not 1 <= start <= end:
        raise LabelError(f"{where}: {start}..{end}: wanted 1 <= start <= end")
    return start - 1, end


def _read_gtf(path: Path) -> list[Transcript]:
    parts: dict[str, _Parts] = {}
    for where, fields in _lines(path):
        span = _span(fields, where)
        if fields[2] not in ("exon", "CDS"):
            continue
        attributes = dict(_GTF_FIELD.findall(fields[8]))
        name = str(attributes.get("transcript_id", ""))
        if not name:
            raise LabelError(f"{where}: a {fields[2]} line without transcript_id")
        part = parts.setdefault(name, _Parts(where))
        part.gene = part.gene or attributes.get("gene_id", name)
        part.partial |= attributes.get("partial") == "true"
        part.add(where, fields, span)
    return _finished(parts)


def _read_gff(path: Path) -> list[Transcript]:
    parts: dict[str, _Parts] = {}
    gene_of: dict[str, str] = {}
    for where, fields in _lines(path):
        span = _span(fields, where)
        attributes = dict(item.split("=", 1) for item in fields[8].strip(";").split(";") if "=" in item)
        if fields[2].endswith("gene"):
            identifier = attributes.get("ID", "")
            gene_of[identifier] = attributes.get("locus_tag", attributes.get("Name", identifier))
        elif fields[2] in _TRANSCRIPT_KINDS or fields[2].endswith("RNA"):
            identifier, parent = attributes.get("ID", ""), attributes.get("Parent", "")
            gene_of[identifier] = gene_of.get(parent, attributes.get("locus_tag", parent or identifier))
        elif fields[2] in ("exon", "CDS"):
            if "Parent" not in attributes:
                raise LabelError(f"{where}: a {fields[2]} line without Parent")
            for name in attributes["Parent"].split(","):
                part = parts.setdefault(name, _Parts(where))
                part.gene = gene_of.get(name, name)
                part.partial |= attributes.get("partial") == "true"
                part.add(where, fields, span)
    return _finished(parts)


def _finished(parts: dict[str, _Parts]) -> list[Transcript]:
    found = []
    for name, part in parts.items():
        # a coding part without exon lines of its own is all there is (bacteria, some viruses)
        spans = part.exons or part.coding
        if part.strand not in ("+", "-"):
            continue
        coding = (min(s for s, _ in part.coding), max(e for _, e in part.coding)) if part.coding else None
        found.append(
            Transcript(
                name=name,
                gene=part.gene,
                contig=part.contig,
                strand=part.strand,
                exons=_exons([s for s, _ in spans], [e for _, e in spans], part.where),
                coding_bp=coding,
                start_complete=not part.partial,
                where=part.where,
            )
        )
    return found
