"""Reads gene annotations (UCSC refGene tables, GTF and GFF3) into transcripts."""

import logging
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.data.gff import is_gff3_line, is_gtf_line, read_gff3, read_gtf
from dnagpt_fast.finetune.data.refgene import FIELDS, read_refgene
from dnagpt_fast.finetune.data.transcripts import LeftOut, Transcript
from dnagpt_fast.genome.regions import is_browser_line
from dnagpt_fast.input_files import text_lines

__all__ = ["Transcript", "read_annotation"]

logger = logging.getLogger(__name__)

_GFF3_MARK = re.compile(r"##gff-version\s+3")


def read_annotation(path: str | Path) -> list[Transcript]:
    """The transcripts of a refGene table (with or without the bin column), a GTF or a GFF3 file, plain or
    compressed.

    The format is recognised by content. The file is read once, so it may be a pipe. Valid records that cannot
    be used (a feature without parent, a trans-spliced gene) are left out and counted in one warning. Raises
    InputFileError (LabelError for a line) that names file and line.
    """
    path = Path(path)
    lines = _lines(path)
    seen: list[tuple[str, list[str]]] = []
    kind = ""
    for where, fields in lines:
        if not fields:  # the directive ##gff-version 3
            kind = "gff3"
            break
        seen.append((where, fields))
        if len(fields) in FIELDS and (
            fields[2 + (len(fields) in (11, 16))] in ("+", "-") or "txStart" in fields
        ):
            kind = "refgene"
        elif len(fields) < 8 or fields[6] not in ("+", "-", ".", "?"):
            raise LabelError(
                f"{where}: {len(fields)} tab-separated fields: neither GTF/GFF3 (9) nor a refGene table "
                f"(10, 11, 15, 16)"
            )
        elif is_gff3_line(fields):
            kind = "gff3"
        elif is_gtf_line(fields):
            kind = "gtf"
        if kind:
            break
    if not seen and not kind:
        raise LabelError(f"{path}: no annotation in it")
    rest = (line for line in chain(seen, lines) if line[1])
    left_out = LeftOut()
    if kind == "refgene":
        found = read_refgene(rest)
    else:
        found = read_gff3(rest, left_out) if kind == "gff3" else read_gtf(rest, left_out)
    if not found:
        raise LabelError(
            f"{path}: no transcripts with exons in it{f'; left out: {left_out}' if left_out else ''}"
        )
    if left_out:
        logger.warning("%s: left out: %s", path, left_out)
    return found


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(place, fields) of each data line; (place, []) for the directive of GFF3.

    Stops at sequences after the annotation, with or without ##FASTA.
    """
    for number, raw in text_lines(path):
        line = raw.rstrip("\r\n")
        if line.startswith(("##FASTA", ">")):
            return
        if line.startswith("#"):
            if _GFF3_MARK.match(line):
                yield f"{path}:{number}", []
            continue
        fields = line.rstrip("\t ").split("\t")
        if not line.strip() or is_browser_line(line):
            continue
        yield f"{path}:{number}", fields
