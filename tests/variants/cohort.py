"""A small genome and VCF files over it, for the tests of variants."""

import gzip
from pathlib import Path

import numpy as np

from dnagpt_fast import Genome

RNG = np.random.default_rng(11)
CONTIGS = {
    name: "".join(RNG.choice(list("ACGT"), length)) for name, length in (("chr1", 900), ("chr20", 500))
}
CONTIGS["chr20"] = CONTIGS["chr20"][:300] + "N" * 40 + CONTIGS["chr20"][340:]
CONTIGS["chr1"] = CONTIGS["chr1"][:400] + "CACACACACACA" + CONTIGS["chr1"][412:]
HEADER = """##fileformat=VCFv4.2
##FILTER=<ID=q10,Description="Quality below 10">
##INFO=<ID=AF,Number=A,Type=Float,Description="Allele frequency">
##INFO=<ID=DB,Number=0,Type=Flag,Description="In dbSNP">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##contig=<ID=chr1,length=900>
##contig=<ID=20,length=500>
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tann\tbob
"""


def write_genome(folder: Path) -> Path:
    path = folder / "genome.fa"
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in CONTIGS.items()))
    return path


def open_genome(folder: Path) -> Genome:
    return Genome.open(write_genome(folder))


def other(base: str, step: int = 1) -> str:
    return "ACGT"[("ACGT".index(base) + step) % 4]


def line(contig: str, pos: int, reference: str | int, alternatives: str, info: str = "AF=0.50;DB") -> str:
    """reference: text, or a number of bases of the genome."""
    if isinstance(reference, int):
        bases = CONTIGS[contig if contig.startswith("chr") else f"chr{contig}"]
        reference = bases[pos - 1 : pos - 1 + reference]
    return f"{contig}\t{pos}\trs{pos}\t{reference}\t{alternatives}\t30.0\tPASS\t{info}\tGT\t0|1\t./."


def base(contig: str, pos: int) -> str:
    return CONTIGS[contig][pos - 1]


def records() -> list[str]:
    """One of each kind: single bases, several alternatives, insertions, deletions, replaced runs, and all flags except
    those of another genome."""
    a, b = base("chr1", 200), base("chr1", 260)
    return [
        line("chr1", 5, 1, other(base("chr1", 5))),  # EDGE
        line("chr1", 200, 1, other(a)),
        line("chr1", 200, 1, f"{other(a, 2)},{other(a, 3)},{a}GATTACA", "AF=0.1,0.200,0.3"),
        line("chr1", 230, 5, base("chr1", 230), "."),
        line("chr1", 260, 1, f"{b}TTT,*,<DEL>"),  # SYMBOLIC
        line("chr1", 300, 3, CONTIGS["chr1"][299:302].translate(str.maketrans("ACGT", "TGCA"))),
        line("chr1", 350, 1, "."),
        line("chr1", 400, 3, base("chr1", 400)),  # STR
        line("chr1", 500, 1, f"{base('chr1', 500)}{'ACGT' * 40}"),  # LONG
        line("20", 120, 1, other(base("chr20", 120)).lower()),
        line("20", 290, 1, other(base("chr20", 290))),  # N
        line("20", 420, 1, f"{base('chr20', 420)}N"),  # N
    ]


def write_vcf_text(path: Path, rows: list[str] | None = None, header: str = HEADER, end: str = "\n") -> Path:
    text = header.replace("\n", end) + "".join(row + end for row in (records() if rows is None else rows))
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path
