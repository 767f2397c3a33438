"""Reads UCSC refGene tables (genePredExt), one transcript per line:
https://genome.ucsc.edu/FAQ/FAQformat.html#format9"""

from collections.abc import Iterable

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.data.transcripts import Transcript, exon_array, parse_coordinate

FIELDS = (10, 11, 15, 16)  # genePred, genePredExt, and each after a column `bin` (or refFlat's gene name)


def read_refgene(lines: Iterable[tuple[str, list[str]]]) -> list[Transcript]:
    """The transcripts of the lines. Raises LabelError that names file and line."""
    return [_transcript(where, fields) for where, fields in lines if "txStart" not in fields]


def _transcript(where: str, fields: list[str]) -> Transcript:
    if len(fields) in (11, 16):
        fields = fields[1:]
    if len(fields) not in (10, 15) or fields[2] not in ("+", "-"):
        raise LabelError(f"{where}: no refGene row: wanted 10, 11, 15 or 16 fields, strand + or -")
    name, contig, strand = fields[:3]
    coding = parse_coordinate(fields[5], where, "cdsStart"), parse_coordinate(fields[6], where, "cdsEnd")
    count = parse_coordinate(fields[7], where, "exonCount")
    starts, ends = (
        [parse_coordinate(text, where, what) for text in field.split(",") if text.strip()]
        for field, what in ((fields[8], "exonStarts"), (fields[9], "exonEnds"))
    )
    if not len(starts) == len(ends) == count or not count:
        raise LabelError(
            f"{where}: {len(starts)} exon starts, {len(ends)} ends, exonCount {count}: wanted equal numbers"
        )
    spans = list(zip(starts, ends, strict=True))
    exons = exon_array(spans)
    if exons is None:
        raise LabelError(f"{where}: exons {spans}: wanted start < end, without overlaps")
    if coding[0] < coding[1] and not exons[0, 0] <= coding[0] < coding[1] <= exons[-1, 1]:
        raise LabelError(f"{where}: coding part {coding}: wanted it inside the exons {spans}")
    status = fields[12:14] if len(fields) == 15 else ["cmpl", "cmpl"]
    return Transcript(
        name=name,
        gene=fields[11] if len(fields) == 15 else name,
        contig=contig,
        strand=strand,
        exons=exons,
        coding_bp=coding if coding[0] < coding[1] else None,
        start_complete=status[0 if strand == "+" else 1] == "cmpl"
        and not _starts_inside_a_codon(fields, strand),
        where=where,
    )


def _starts_inside_a_codon(fields: list[str], strand: str) -> bool:
    """Whether the first coding exon has a frame other than 0; exonFrames is -1 for exons without coding
    bases."""
    frames = [text for text in fields[14].split(",") if text not in ("", "-1")] if len(fields) == 15 else []
    return bool(frames) and frames[0 if strand == "+" else -1] in ("1", "2")
