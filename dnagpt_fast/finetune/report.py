"""The report on the test rows of a run: predictions, scores with intervals, figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnagpt_fast.evaluation import plots
from dnagpt_fast.evaluation.haplotype_statistics import HaplotypeReport, compare_haplotypes
from dnagpt_fast.evaluation.scores import Score, classification_scores, regression_scores
from dnagpt_fast.finetune.data.examples import Loci
from dnagpt_fast.finetune.data.haplotypes import HaplotypePanel, write_haps
from dnagpt_fast.finetune.data.tables import write_rows
from dnagpt_fast.finetune.language import Language
from dnagpt_fast.finetune.settings import SamplingSettings
from dnagpt_fast.finetune.task_data import TaskData
from dnagpt_fast.finetune.task_loss import TaskLosses
from dnagpt_fast.model.generation import generate
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.plot_style import VECTOR
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.vocab import PAD_ID, UNKNOWN_ID, reserved_id


@dataclass(frozen=True)
class Predictions:
    """One prediction per sequence; windows of one sequence are averaged.

    where   where each sequence is in its file, without the folder: `x.csv:12`
    name    what its file calls it (Examples.name); None if the file has no names
    label   the labels as in the file; None for rows without labels
    loci    positions in the genome; None if the file does not have them
    values  float64: probabilities (n, C), or values of the (transformed) label (n,)
    truth   int64 classes or float64 values (n,); None for rows without labels
    classes  the names of the classes, in the order of the probabilities
    """

    where: list[str]
    values: np.ndarray
    truth: np.ndarray | None
    classes: tuple[str, ...] = ()
    name: list[str] | None = None
    label: list[str] | None = None
    loci: Loci | None = None


@torch.no_grad()
def mean_loss(
    losses: TaskLosses,
    data: TaskData,
    batch_size: int,
    device: torch.device,
    processes: Processes | None = None,
) -> float:
    """Unweighted mean loss over the rows of a set; for tagging over their k-mers, for generation in nats per base pair.

    Several processes share the batches; all return the same value.
    """
    processes = processes or Processes()
    sums = torch.zeros((), dtype=torch.float64, device=device)
    for batch in islice(data.in_order_of_length(batch_size), processes.rank, None, processes.world_size):
        sums += losses.row_losses(batch.to(device)).double().sum()
    total = float(processes.sum(sums))
    if data.template.kind == "generation":
        return total / sum(map(len, data.examples.sequence))
    if data.examples.tags is not None:
        return total / sum(map(len, data.examples.tags))
    return total / len(data)


@torch.no_grad()
def predict_rows(
    losses: TaskLosses,
    data: TaskData,
    language: Language,
    batch_size: int,
    device: torch.device,
    *,
    labelled: bool,
    progress: Callable[[int], object] = lambda rows: None,
) -> Predictions:
    """progress: called with the number of rows done since the last call."""
    rows, values = [], []
    # a padded row differs in the last bits, which rounded products would enlarge
    equal = losses.model.products != "float32"
    for batch in data.in_order_of_length(batch_size, equal=equal):
        values.append(losses.predict(batch.to(device)).double().cpu().numpy())
        rows.append(batch.row.numpy())
        progress(len(rows[-1]))
    order = np.argsort(np.concatenate(rows))
    raw = np.concatenate(values)[order]
    if language.template.kind == "regression":
        raw = language.natural_value(raw)
    _, first, row_of = np.unique(data.examples.parent, return_index=True, return_inverse=True)
    total = np.zeros((len(first), *raw.shape[1:]))
    np.add.at(total, row_of, raw)
    count = np.bincount(row_of).reshape(-1, *([1] * (raw.ndim - 1)))
    truth = None
    if labelled:
        targets = data.targets[first]
        truth = language.natural_value(targets) if language.template.kind == "regression" else targets
    of_row = data.examples.take(first)
    folder = str(of_row.path.parent / "_")[:-1]
    return Predictions(
        [where.removeprefix(folder) for where in of_row.where],
        total / count,
        truth,
        language.classes,
        of_row.name,
        of_row.label if labelled else None,
        of_row.loci,
    )


def write_predictions(path: Path, found: Predictions, language: Language) -> None:
    """Writes a table: name (if the file has names), where, the place in the genome (if known), the label as in the file
    (if known), the prediction, and for classes the probability of each.

    With a transform of the label, its transformed value is a column too, and the prediction is in the same scale.
    """
    columns: dict[str, Sequence[object]] = {}
    if found.name is not None:
        columns["name"] = found.name
    columns["where"] = found.where
    if found.loci is not None:
        columns["contig"] = found.loci.contig
        columns["start_bp"], columns["end_bp"] = found.loci.start_bp.tolist(), found.loci.end_bp.tolist()
        columns["strand"] = found.loci.strand
    if found.label is not None:
        columns["label"] = found.label
    if language.template.kind == "regression":
        scale = "" if language.target_transform == "none" else f"{language.target_transform}_"
        if scale and found.truth is not None:
            columns[f"{scale}label"] = [f"{value:.9g}" for value in found.truth]
        columns[f"{scale}predicted"] = found.values.tolist()
    else:
        columns["predicted"] = [language.classes[i] for i in found.values.argmax(1).tolist()]
        for i, name in enumerate(language.classes):
            columns[f"p_{name}"] = [f"{p:.6g}" for p in found.values[:, i]]
    write_rows(path, list(columns), list(zip(*columns.values(), strict=True)))


def score_predictions(
    found: Predictions, language: Language, folder: Path, *, seed: int = 0
) -> dict[str, Score]:
    """The scores; also draws them in `test.png` and `test.svg` in the folder. Raises ValueError where a class is
    empty."""
    assert found.truth is not None
    path = folder / "test.png"
    if language.template.kind == "regression":
        scores = regression_scores(found.truth, found.values, seed=seed)
        name = "label" if language.target_transform == "none" else "log10(label + 0.1)"
        plots.plot_regression(path, found.truth, found.values, name, scores, beside=(VECTOR,))
        return scores
    positive = 1 if len(language.classes) == 2 else None
    scores = classification_scores(found.truth, found.values, positive=positive, seed=seed)
    plots.plot_classification(path, found.truth, found.values, language.classes, scores, beside=(VECTOR,))
    return scores


def sample_texts(
    losses: TaskLosses,
    data: TaskData,
    bases: int,
    settings: SamplingSettings,
    count: int,
    device: torch.device,
) -> list[str]:
    """`count` sequences of at most `bases` letters, sampled after the species token with settings.seed.

    Sampling stops at the unknown and at the pad token, as in the published models.
    """
    vocabulary = data.template.vocabulary
    start = torch.full((count, 1), reserved_id(data.template.species), dtype=torch.int64, device=device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        made = generate(
            losses.model,
            start,
            -(-bases // vocabulary.k),
            settings.temperature,
            True,
            settings.top_k,
            settings.top_p,
            [UNKNOWN_ID, PAD_ID],
        )
    tokenizer = KmerTokenizer.of(vocabulary)
    return [tokenizer.decode([i for i in row if i != PAD_ID])[:bases] for row in made[:, 1:].tolist()]


def report_haplotypes(
    texts: list[str], panel: HaplotypePanel, rows: dict[str, np.ndarray], folder: Path
) -> tuple[dict[str, float], HaplotypeReport]:
    """Compares generated haplotypes with the held-out ones; writes `haplotypes.png` and `.svg` and, as `made.haps`, the
    generated haplotypes."""
    made, foreign = panel.alleles_of(texts)
    test, train = panel.alleles[rows["test"]], panel.alleles[rows["train"]]
    found = compare_haplotypes(made, test, train, panel.position_bp)
    plots.plot_haplotypes(folder / "haplotypes.png", {"model": found}, beside=(VECTOR,))
    write_haps(folder / "made.haps", panel, made)
    scores: dict[str, Any] = {"letters_of_no_allele": foreign / made.size, **found.scores}
    return scores, found
