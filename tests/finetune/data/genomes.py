"""A small genome with genes at known sites."""

import random
from pathlib import Path

from dnagpt_fast.genome import Genome

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def reverse_complement(text: str) -> str:
    return text.translate(COMPLEMENT)[::-1]


def random_bases(length_bp: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=length_bp))


def put(bases: str, at: int, text: str) -> str:
    return bases[:at] + text + bases[at + len(text) :]


def two_gene_genome(folder: Path) -> tuple[Genome, Path]:
    """Contig `20` of 6,000 bp and a refGene table: a gene on each strand, each of two exons.

    Forward: exons [1000, 1100), [1300, 1500), start codon at 1040, donor GT at 1100, acceptor AG at 1298,
    AATAAA at 1480.
    Reverse: exons [4000, 4200), [4500, 4700), start codon [4637, 4640), donor [4498, 4500), acceptor [4200, 4202),
    AATAAA [4015, 4021) read backwards.
    """
    bases = random_bases(6000, seed=1)
    for at, text in ((1040, "ATG"), (1100, "GT"), (1298, "AG"), (1480, "AATAAA"), (1486, "C" * 14)):
        bases = put(bases, at, text)
    for at, text in ((4637, "ATG"), (4498, "GT"), (4200, "AG"), (4015, "AATAAA"), (4000, "C" * 15)):
        bases = put(bases, at, reverse_complement(text))
    (folder / "g.fa").write_text(f">20\n{bases}\n")
    rows = [
        "NM_1 chr20 + 1000 1500 1040 1400 2 1000,1300, 1100,1500, 0 ONE cmpl cmpl 0,0,",
        "NM_1b chr20 + 1000 1500 1040 1400 2 1000,1300, 1100,1500, 0 ONE cmpl cmpl 0,0,",
        "NM_2 chr20 - 4000 4700 4100 4640 2 4000,4500, 4200,4700, 0 TWO cmpl cmpl 0,0,",
        "NM_3 chr21 - 4000 4700 4100 4640 2 4000,4500, 4200,4700, 0 OTHER cmpl cmpl 0,0,",
    ]
    table = "".join("585\t" + row.replace(" ", "\t") + "\n" for row in rows)
    (folder / "genes.txt").write_text("#bin\tname\tchrom\n" + table)
    return Genome.open(folder / "g.fa"), folder / "genes.txt"
