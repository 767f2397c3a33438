"""Reads GTF and GFF3: joins lines of exons and coding parts into transcripts.

Formats, both 1-based and closed: https://mblab.wustl.edu/GTF22.html and
https://github.com/The-Sequence-Ontology/Specifications.

Lines with the same transcript name (GFF3: the same parent) on one contig and strand belong together. The name
alone is not enough: in real files the same name occurs on another contig (pseudo-autosomal regions,
alternative haplotypes), on the other strand, or at a second place of the same strand. Such places are
distinguished by the lines of the transcripts themselves, by repeated exon numbers, or by several start
codons.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import unquote

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.data.transcripts import (
    LeftOut,
    Span,
    Transcript,
    exon_array,
    merged,
    parse_coordinate,
)
from dnagpt_fast.input_files import InputFileError

_GTF_FIELD = re.compile(r'\s*([^\s;="]+)\s+(?:"([^"]*)"|([^";]*?))\s*(?:;|$)')
_GFF3_FIRST = re.compile(r'\s*[^\s;="]+\s*=')
_TRANSCRIPT_KINDS = frozenset({"mRNA", "transcript", "primary_transcript"})
_UTR_KINDS = frozenset(
    {"UTR", "5UTR", "3UTR", "five_prime_UTR", "three_prime_UTR", "five_prime_utr", "three_prime_utr"}
)
_PART_KINDS = frozenset({"exon", "CDS", "start_codon"}) | _UTR_KINDS
_START_UNKNOWN = frozenset({"cds_start_NF", "mRNA_start_NF"})
SLIPPAGE_BP = (
    3  # a gap of at most this size between parts of a coding sequence is a frame shift, not an intron
)

Lines = Iterable[tuple[str, list[str]]]
Key = tuple[str, ...]


def is_gff3_line(fields: list[str]) -> bool:
    """Whether the attributes are `key=value`."""
    return len(fields) >= 9 and _GFF3_FIRST.match(fields[8]) is not None


def is_gtf_line(fields: list[str]) -> bool:
    """Whether the attributes are `key "value";` or `key value;`; a bare name, as in AUGUSTUS files, does not
    decide."""
    return len(fields) >= 9 and _GTF_FIELD.match(fields[8]) is not None


@dataclass(frozen=True)
class _Line:
    where: str
    contig: str
    kind: str
    span: Span
    strand: str
    phase: str
    attributes: Mapping[str, str]
    tags: frozenset[str]

    @property
    def exception(self) -> str:
        return self.attributes.get("exception", "").lower().replace("_", "-").replace(" ", "-")


@dataclass
class _Parts:
    """The lines of one transcript, or of several with the same name on one strand of one contig."""

    name: str
    gene: str = ""
    own: list[_Line] = field(default_factory=list)
    parts: list[_Line] = field(default_factory=list)
    parent_is_gene: bool = False

    def of_kind(self, *kinds: str) -> list[_Line]:
        return [line for line in self.parts if line.kind in kinds]


def read_gtf(lines: Lines, left_out: LeftOut) -> list[Transcript]:
    """Raises LabelError naming file and line."""
    found: dict[Key, _Parts] = {}
    spliced: set[str] = set()
    for where, fields in lines:
        kind = fields[2] if len(fields) > 2 else ""
        own = _is_transcript(kind)
        if not own and kind not in _PART_KINDS:
            continue
        _check_fields(fields, where)
        pairs = [(key, quoted or bare) for key, quoted, bare in _GTF_FIELD.findall(fields[8])]
        attributes = dict(pairs)
        name = attributes.get("transcript_id", "" if pairs or not own else fields[8].strip(' ;"'))
        if not name:
            if own:
                continue
            raise LabelError(f"{where}: a {kind} line without transcript_id")
        tags = frozenset(value for key, value in pairs if key == "tag")
        line = _line(where, fields, fields[0], attributes, tags, left_out if own else None)
        if line is None:
            continue
        if "trans-splicing" in line.exception:
            spliced.add(name)
        gene = attributes.get("gene_id", "")
        parts = found.setdefault((name, line.contig, line.strand), _Parts(name))
        parts.gene = parts.gene or gene
        (parts.own if own else parts.parts).append(line)
    groups = [place for parts in found.values() for place in _places(parts, {})]
    return _finished(groups, spliced, {}, left_out)


def read_gff3(lines: Lines, left_out: LeftOut) -> list[Transcript]:
    """Raises LabelError naming file and line."""
    found: dict[Key, _Parts] = {}
    own_lines: dict[Key, list[_Line]] = {}
    genes: dict[str, str] = {}
    gene_of: dict[str, str] = {}
    spliced: set[str] = set()
    circular: dict[str, int] = {}
    for where, fields in lines:
        kind = fields[2] if len(fields) > 2 else ""
        attributes = _gff3_attributes(fields[8]) if len(fields) == 9 else {}
        contig = unquote(fields[0])
        if attributes.get("Is_circular", "").lower() == "true" and fields[4].isdigit():
            circular[contig] = parse_coordinate(fields[4], where, "end")
        identifier, parent = unquote(attributes.get("ID", "")), attributes.get("Parent", "")
        is_gene, own = kind.lower().endswith("gene"), _is_transcript(kind)
        if is_gene:
            genes[identifier] = unquote(attributes.get("locus_tag", attributes.get("Name", identifier)))
        elif own:
            tag = attributes.get("locus_tag", parent or identifier)
            gene_of[identifier] = genes.get(unquote(parent), unquote(tag))
        if not (is_gene or own) and kind not in _PART_KINDS:
            continue
        if is_gene and not identifier:
            continue
        _check_fields(fields, where)
        tags = frozenset(map(unquote, attributes.get("tag", "").split(",")))
        line = _line(where, fields, contig, attributes, tags, left_out if is_gene or own else None)
        if line is None:
            continue
        if is_gene or own:
            own_lines.setdefault((identifier, contig, line.strand), []).append(line)
            if "trans-splicing" in line.exception:
                spliced.add(identifier)
            continue
        names = [unquote(name) for name in parent.split(",") if name]
        if not names and kind == "CDS":
            # Prodigal, Prokka, Bakta: a coding part without a parent
            names = [identifier or attributes.get("locus_tag") or f"CDS at {where}"]
        if not names:
            left_out.add(f"{kind} lines without Parent", where)
        for name in names:
            if "trans-splicing" in line.exception:
                spliced.add(name)
            parts = found.setdefault((name, contig, line.strand), _Parts(name))
            parts.parts.append(line)
    for key, parts in found.items():
        parts.own = own_lines.get(key, [])
        parts.gene = gene_of.get(parts.name, genes.get(parts.name, parts.name))
        parts.parent_is_gene = parts.name in genes
    groups = [place for parts in found.values() for place in _places(parts, circular)]
    groups = [product for place in groups for product in _products(place)]
    return _finished(groups, spliced, circular, left_out)


def _is_transcript(kind: str) -> bool:
    return kind in _TRANSCRIPT_KINDS or kind.endswith("RNA")


def _check_fields(fields: list[str], where: str) -> None:
    if len(fields) != 9:
        raise LabelError(f"{where}: {len(fields)} tab-separated fields: wanted 9")


def _gff3_attributes(text: str) -> dict[str, str]:
    pairs = (item.split("=", 1) for item in text.split(";") if "=" in item)
    return {unquote(key.strip()): value.strip() for key, value in pairs}


def _line(
    where: str,
    fields: list[str],
    contig: str,
    attributes: Mapping[str, str],
    tags: frozenset[str],
    left_out: LeftOut | None,
) -> _Line | None:
    """A parsed line. Bad coordinates: None, counted in left_out, for lines that only help to read others;
    otherwise InputFileError."""
    try:
        start, end = (parse_coordinate(fields[i], where, what) for i, what in ((3, "start"), (4, "end")))
        if not 1 <= start <= end:
            raise LabelError(f"{where}: {start}..{end}: wanted 1 <= start <= end")
    except InputFileError:
        if left_out is None:
            raise
        left_out.add(f"{fields[2]} lines with unreadable coordinates", where)
        return None
    return _Line(where, contig, fields[2], (start - 1, end), fields[6], fields[7], attributes, tags)


def _places(parts: _Parts, circular: Mapping[str, int]) -> list[_Parts]:
    """The places of one name on one strand of one contig; mostly there is only one."""
    if not parts.parts:
        return []
    lines = parts.parts
    spans = sorted({line.span for line in parts.own})
    if lines[0].contig in circular or any("part" in line.attributes for line in parts.own):
        return [parts]
    if len(spans) > 1 and len(merged(spans)) == len(spans):
        cuts = [span[0] for span in spans[1:]]
        if not all(any(s <= line.span[0] and line.span[1] <= e for s, e in spans) for line in lines):
            return [parts]
    else:
        cuts = _cuts_by_exon_numbers(parts) or _cuts_by_start_codons(parts)
    if not cuts:
        return [parts]
    found = [
        _Parts(parts.name, parts.gene, parent_is_gene=parts.parent_is_gene) for _ in range(len(cuts) + 1)
    ]
    for group in ("own", "parts"):
        for line in getattr(parts, group):
            getattr(found[sum(line.span[0] >= cut for cut in cuts)], group).append(line)
    return [place for place in found if place.parts]


def _cuts_by_exon_numbers(parts: _Parts) -> list[int]:
    """Starts of the second and later places, where the exon numbers start again."""
    exons = sorted({(line.span, line.attributes.get("exon_number", "")) for line in parts.of_kind("exon")})
    numbers = [int(text) if text.isdigit() and text.isascii() else -1 for _, text in exons]
    if -1 in numbers or len(set(numbers)) == len(numbers):
        return []
    ways = [
        [exons[i][0][0] for i in range(1, len(exons)) if sign * numbers[i] <= sign * numbers[i - 1]]
        for sign in (1, -1)
    ]
    return min(ways, key=len)


def _cuts_by_start_codons(parts: _Parts) -> list[int]:
    codons = sorted({line.span for line in parts.of_kind("start_codon")})
    if sum(end - start for start, end in codons) <= 3 or any(end - start != 3 for start, end in codons):
        return []
    units = merged([line.span for line in parts.parts if line.kind != "start_codon"])
    cuts = []
    for (_, before), (after, _) in pairwise(codons):
        gaps = [
            (right[0] - left[1], right[0])
            for left, right in pairwise(units)
            if left[1] >= before and right[0] <= after
        ]
        if not gaps:
            return []  # two start codons in one exon: alternative starts of one transcript
        cuts.append(max(gaps)[1])
    return cuts


def _products(parts: _Parts) -> list[_Parts]:
    """The coding sequences of one parent. IDs do not define coding sequences in a GFF3 file with a separate
    ID per line."""
    coding: dict[str, list[_Line]] = {}
    for line in parts.of_kind("CDS"):
        coding.setdefault(line.attributes.get("ID", ""), []).append(line)
    if len(coding) < 2:
        return [parts]
    everything = [line.span for lines in coding.values() for line in lines]
    proteins = {line.attributes.get("protein_id", "") for lines in coding.values() for line in lines}
    overlapping = sum(e - s for s, e in merged(everything)) < sum(e - s for s, e in everything)
    shared = any(len(lines) > 1 for lines in coding.values())
    if not (parts.parent_is_gene or overlapping or shared or len(proteins) > 1):
        return [parts]
    others = [line for line in parts.parts if line.kind != "CDS"]
    return [
        _Parts(name or parts.name, parts.gene, parts.own, [*others, *lines], parts.parent_is_gene)
        for name, lines in coding.items()
    ]


def _finished(
    groups: Iterable[_Parts], spliced: set[str], circular: Mapping[str, int], left_out: LeftOut
) -> list[Transcript]:
    found = []
    for parts in groups:
        first = parts.parts[0]
        if spliced & {parts.name, *(name for line in parts.parts for name in _parents(line))}:
            left_out.add("parts of trans-spliced transcripts", first.where)
        elif first.strand not in ("+", "-"):
            left_out.add("transcripts without a strand", first.where)
        elif (transcript := _transcript(parts, circular.get(first.contig, 0))) is not None:
            found.append(transcript)
        else:
            left_out.add("transcripts whose exons overlap", first.where)
    return found


def _parents(line: _Line) -> list[str]:
    return [unquote(name) for name in line.attributes.get("Parent", "").split(",") if name]


def _transcript(parts: _Parts, circular_bp: int) -> Transcript | None:
    coding_lines, exon_lines = parts.of_kind("CDS"), parts.of_kind("exon")
    utr_lines = parts.of_kind(*_UTR_KINDS)
    if not (coding_lines or exon_lines):
        exon_lines = utr_lines
    strand = parts.parts[0].strand
    shift_before = _origin(parts.parts, circular_bp)
    coding = _shifted(coding_lines, shift_before, circular_bp)
    slips = any("ribosomal-slippage" in line.exception for line in coding_lines)
    if exon_lines:
        spans = sorted(set(_shifted(exon_lines, shift_before, circular_bp)))
    else:
        # without exon lines the coding parts are the exons: bacteria, some viruses, some gene finders
        spans = merged(
            [*coding, *_shifted(utr_lines, shift_before, circular_bp)], SLIPPAGE_BP if slips else 0
        )
    exons = exon_array(spans)
    if exons is None or not len(exons):
        return None
    limits = [*coding_lines, *exon_lines, *(line for line in parts.own if _is_transcript(line.kind))]
    return Transcript(
        name=parts.name,
        gene=parts.gene or parts.name,
        contig=parts.parts[0].contig,
        strand=strand,
        exons=exons,
        coding_bp=(min(s for s, _ in coding), max(e for _, e in coding)) if coding else None,
        start_complete=not (
            _open_end(limits, strand, "start")
            or any(line.tags & _START_UNKNOWN for line in limits)
            or _starts_inside_a_codon(coding_lines, coding, strand)
        ),
        where=parts.parts[0].where,
        end_complete=not (
            _open_end(limits, strand, "end") or any("mRNA_end_NF" in line.tags for line in limits)
        ),
        circular_bp=circular_bp,
    )


def _open_end(lines: Iterable[_Line], strand: str, side: str) -> bool:
    """Whether the true 5' end ("start") or 3' end ("end") is not known.

    NCBI: partial=true with start_range or end_range for the open side, in the direction of the contig;
    Prodigal: partial=10, a digit for each side.
    """
    left = (side == "start") == (strand == "+")
    for line in lines:
        partial = line.attributes.get("partial", "")
        ranges = [name for name in ("start_range", "end_range") if name in line.attributes]
        if ("start_range" if left else "end_range") in ranges or (partial == "true" and not ranges):
            return True
        if re.fullmatch("[01]{2}", partial) and partial[0 if left else 1] == "1":
            return True
    return False


def _starts_inside_a_codon(lines: list[_Line], spans: list[Span], strand: str) -> bool:
    """Whether the first coding part starts inside a codon, by its phase."""
    if not lines:
        return False
    at = min(range(len(lines)), key=lambda i: spans[i][0] if strand == "+" else -spans[i][1])
    return lines[at].phase in ("1", "2")


def _origin(lines: list[_Line], circular_bp: int) -> int:
    """Parts before this base are past the origin of a circular contig; 0 if the parts do not cross the
    origin."""
    spans = merged([line.span for line in lines])
    if not circular_bp or len(spans) < 2 or spans[0][0] or spans[-1][1] != circular_bp:
        return 0
    return max((right[0] - left[1], right[0]) for left, right in pairwise(spans))[1]


def _shifted(lines: list[_Line], before_bp: int, by_bp: int) -> list[Span]:
    return [
        (line.span[0] + by_bp, line.span[1] + by_bp) if line.span[0] < before_bp else line.span
        for line in lines
    ]
