"""Artificial haplotypes of 240 common SNPs of human chr20 (1000 Genomes, 300 people): made by a model fine-tuned from a
pre-trained one and from random weights, beside draws by site frequency and by a Markov chain over the variants.

    python recipes/artificial_haplotypes.py

Haplotypes: Debian's shapeit4-example. Every REF is held against chr20 of Debian's vt-examples.
"""

import json

from fetch import debian
from stage import HERE, Clock, finish, folders, pretrained, table, tuned

from dnagpt_fast.evaluation.baselines import sample_markov, sample_site_frequencies
from dnagpt_fast.evaluation.haplotype_statistics import compare_haplotypes
from dnagpt_fast.evaluation.plots import plot_haplotypes
from dnagpt_fast.finetune.data.haplotypes import read_haplotypes
from dnagpt_fast.finetune.prepare import prepare
from dnagpt_fast.finetune.settings import load_finetune_config
from dnagpt_fast.vocab import Vocabulary

SCORES = (
    "allele_frequency_correlation", "ld_correlation", "ld_decay_error", "pca_wasserstein",
    "nearest_training_distance", "copies", "distinct",
)  # fmt: skip


def main() -> None:
    data, out = folders(__doc__ or "")
    clock = Clock()
    vcf = debian("shapeit4-example", data)
    fasta = debian("vt-examples", data)
    clock.lap("fetching")
    start = pretrained("human_chr20", fasta, ["20:60000000-63025520"], out)
    clock.lap("pre-training")
    genome = f'data.genome="{fasta.resolve()}"'
    found, reports = {}, {}
    for row, begin in (("DNAGPT, random start", None), ("DNAGPT, pre-trained", start)):
        run = out / f"haplotypes_{'random' if begin is None else 'pretrained'}"
        found[row] = tuned("artificial_haplotypes", vcf, run, begin, genome)
        clock.lap(row.split(", ")[1])
    config = load_finetune_config(HERE / "artificial_haplotypes.toml", [f'data.path="{vcf.resolve()}"'])
    prepared = prepare(config, Vocabulary(3), 160)
    panel, rows = prepared.panel, prepared.panel_rows
    assert panel is not None
    training, test, validation = (panel.alleles[rows[name]] for name in ("train", "test", "validation"))
    for name, made in (
        ("site frequencies", sample_site_frequencies(training, len(test), seed=1)),
        ("Markov chain of order 10", sample_markov(training, len(test), order=10, seed=1)),
        ("real haplotypes (validation set)", validation),
    ):
        reports[name] = compare_haplotypes(made, test, training, panel.position_bp)
        found[name] = reports[name].scores
    for row in ("random", "pretrained"):
        made = read_haplotypes(out / f"haplotypes_{row}" / "made.haps", min_allele_count=0).alleles
        reports[f"DNAGPT, {row}"] = compare_haplotypes(made, test, training, panel.position_bp)
    plot_haplotypes(out / "artificial_haplotypes.png", reports)
    clock.lap("baselines")
    told = json.loads((start / "validation.json").read_text())
    real = found["DNAGPT, random start"]["nearest_training_distance_of_real"]
    text = "\n\n".join(
        [
            "# Artificial haplotypes, human chr20",
            f"Pre-training: {told['nats_per_bp']:.4f} nats/bp on a held-out range (uniform "
            f"{told['uniform_nats_per_bp']:.4f}, order-5 Markov chain {told['markov_nats_per_bp']:.4f}).",
            f"Rows: {len(training)} training, {len(validation)} validation, {len(test)} test haplotypes of "
            f"{len(panel.position_bp)} SNPs. A real test haplotype differs from the nearest training one at {real:.0f} "
            f"(median).",
            table(found, SCORES),
            "Cross-entropy of the test haplotypes, nats per variant: random start "
            f"{found['DNAGPT, random start']['nats_per_bp']:.4f}, pre-trained "
            f"{found['DNAGPT, pre-trained']['nats_per_bp']:.4f}. Letters of no allele: random start "
            f"{found['DNAGPT, random start']['letters_of_no_allele']:.4f}, pre-trained "
            f"{found['DNAGPT, pre-trained']['letters_of_no_allele']:.4f}.",
        ]
    )
    finish(out, "artificial_haplotypes", text, clock)


if __name__ == "__main__":
    main()
