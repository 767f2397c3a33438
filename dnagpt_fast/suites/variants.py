"""Suite variants: labelled variants ranked by their log-ratio, by AUROC and AUPRC, also within consequence classes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.selection import Place
from dnagpt_fast.input_files import inner_suffix, parse_integer, text_lines
from dnagpt_fast.suites.scored import FittedChains, blocks, variant_task
from dnagpt_fast.suites.subjects import Variant
from dnagpt_fast.suites.task import Source, Task, stem
from dnagpt_fast.variants.places import is_sequence, reference_flag

NAME = "variants"
ABOUT = "labelled variants: AUROC, AUPRC"
LAYOUT = (
    "DIR/TASK.vcf (INFO key LABEL or CLNSIG, or an ID such as Common_12) or .tsv, .csv with columns contig, pos "
    "(1-based), ref, alt, label and, if there is one, consequence; --genome"
)
DAMAGING = (
    "1",
    "true",
    "positive",
    "pathogenic",
    "likely_pathogenic",
    "pathogenic/likely_pathogenic",
    "rare",
)
HARMLESS = ("0", "false", "negative", "benign", "likely_benign", "benign/likely_benign", "common", "neutral")
NAMES = {
    "contig": ("contig", "chrom", "chr", "#chrom"),
    "pos": ("pos", "position"),
    "ref": ("ref", "reference"),
    "alt": ("alt", "alternative"),
}
AROUND_BP = 1000
BLOCK_BP = 100_000


@dataclass(frozen=True)
class Labelled:
    """One variant. label: 1 for a class of DAMAGING, 0 for one of HARMLESS."""

    variant: Variant
    label: int
    consequence: str
    where: str


def tasks(source: Source) -> Iterator[Task]:
    genome = source.opened_genome("a file of variants")
    for path in source.tables(".vcf", ".tsv", ".csv", ".txt"):
        if source.wants(stem(path)):
            yield _task(path, list(_checked(source.read(path), genome)), genome, source)


def _task(path: Path, rows: list[Labelled], genome: Genome, source: Source) -> Task:
    labels = np.array([row.label for row in rows], np.int64)
    for label, names in ((1, DAMAGING), (0, HARMLESS)):
        if not (labels == label).any():
            where = rows[0].where if rows else path
            raise LabelError(f"{where}: no variant from here on has one of the labels {', '.join(names)}")
    drawn = [
        i
        for label in (0, 1)
        for i in np.nonzero(labels == label)[0][source.some(int((labels == label).sum()), f"{path} {label}")]
    ]
    kept = [rows[i] for i in sorted(drawn)]
    variants = [row.variant for row in kept]
    places = [Place("", contig, start, start + len(ref)) for contig, start, ref, _ in variants]
    # the chains do not read the variants' own surroundings
    around = [
        place._replace(start_bp=max(place.start_bp - AROUND_BP, 0), end_bp=place.end_bp + AROUND_BP)
        for place in places
    ]
    truth = np.array([row.label for row in kept])
    counts = {"class 1": int(truth.sum()), "class 0": int((1 - truth).sum()), "drawn from": len(rows)}
    consequence = [row.consequence for row in kept]
    chains = FittedChains(genome, around)
    return variant_task(
        stem(path), genome, variants, truth, blocks(places, BLOCK_BP), chains, counts,
        consequence=consequence if any(consequence) else None,
    )  # fmt: skip


def _checked(path: Path, genome: Genome) -> Iterator[Labelled]:
    """Each variant under the genome's own name of its contig. Raises LabelError, VariantError for one that does not
    fit."""
    read = _vcf if inner_suffix(path) == ".vcf" else _table
    for contig, position, reference, alternative, label, consequence, where in read(path):
        name = label.lower()
        if name not in DAMAGING and name not in HARMLESS:
            raise LabelError(
                f"{where}: label {label!r}: wanted one of {', '.join(DAMAGING)} or {', '.join(HARMLESS)}"
            )
        start_bp = parse_integer(position, where, "POS") - 1
        if not is_sequence(reference) or not is_sequence(alternative):
            raise LabelError(f"{where}: REF {reference!r}, ALT {alternative!r}: wanted bases")
        reference_flag(genome, contig, start_bp, reference, where, flag=False)
        own = genome.names[genome.contigs.find(contig, where)]
        variant = (own, start_bp, reference.upper(), alternative.upper())
        yield Labelled(variant, int(name in DAMAGING), consequence, where)


Row = tuple[str, str, str, str, str, str, str]
"""contig, position, reference, alternative, label, consequence, place"""


def _vcf(path: Path) -> Iterator[Row]:
    """The records of a VCF, with or without its header; a record has five columns or more."""
    for number, line in text_lines(path):
        fields = line.rstrip("\r\n").split("\t")
        if line.startswith("#") or fields == [""]:
            continue
        where = f"{path}:{number}"
        if len(fields) < 5:
            raise LabelError(
                f"{where}: {len(fields)} tab-separated columns: wanted CHROM, POS, ID, REF, ALT ..."
            )
        info = dict(part.partition("=")[::2] for part in (fields[7].split(";") if len(fields) > 7 else ()))
        label = info.get("LABEL") or info.get("CLNSIG") or fields[2].rpartition("_")[0]
        consequence = info.get("CONSEQUENCE") or info.get("MC", "").rpartition("|")[2]
        for alternative in fields[4].split(","):
            yield fields[0], fields[1], fields[3], alternative, label, consequence, where


def _table(path: Path) -> Iterator[Row]:
    parted_by = "," if inner_suffix(path) == ".csv" else "\t"
    header: list[str] = []
    place: dict[str, int] = {}
    for number, line in text_lines(path):
        fields = [field.strip() for field in line.rstrip("\r\n").split(parted_by)]
        where = f"{path}:{number}"
        if fields == [""]:
            continue
        if not header:
            header = [name.lower() for name in fields]
            for wanted, names in {**NAMES, "label": ("label",)}.items():
                found = [name for name in names if name in header]
                if not found:
                    raise LabelError(f"{where}: no column {wanted!r}; the columns are {', '.join(header)}")
                place[wanted] = header.index(found[0])
            continue
        if len(fields) != len(header):
            raise LabelError(f"{where}: {len(fields)} fields, the header has {len(header)}")
        consequence = fields[header.index("consequence")] if "consequence" in header else ""
        yield (*(fields[place[name]] for name in (*NAMES, "label")), consequence, where)  # type: ignore[misc]
