"""The report on the test rows of a run: predictions, scores with intervals, figures."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnagpt_fast.evaluation import plots
from dnagpt_fast.evaluation.haplotype_statistics import HaplotypeReport, compare_haplotypes
from dnagpt_fast.evaluation.scores import Score, classification_scores, regression_scores
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

    where   where each sequence is in its file
    values  float64: probabilities (n, C), or values of the (transformed) label (n,)
    truth   int64 classes or float64 values (n,); None for rows without labels
    classes  the names of the classes, in the order of the probabilities
    """

    where: list[str]
    values: np.ndarray
    truth: np.ndarray | None
    classes: tuple[str, ...] = ()


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
) -> Predictions:
    rows, values = [], []
    # a padded row differs in the last bits, which rounded products would enlarge
    equal = losses.model.products != "float32"
    for batch in data.in_order_of_length(batch_size, equal=equal):
        values.append(losses.predict(batch.to(device)).double().cpu().numpy())
        rows.append(batch.row.numpy())
    order = np.argsort(np.concatenate(rows))
    raw = np.concatenate(values)[order]
    if language.template.kind == "regression":
        raw = language.natural_value(raw)
    _, first, of_row = np.unique(data.examples.parent, return_index=True, return_inverse=True)
    total = np.zeros((len(first), *raw.shape[1:]))
    np.add.at(total, of_row, raw)
    count = np.bincount(of_row).reshape(-1, *([1] * (raw.ndim - 1)))
    truth = None
    if labelled:
        targets = data.targets[first]
        truth = language.natural_value(targets) if language.template.kind == "regression" else targets
    return Predictions([data.examples.where[i] for i in first.tolist()], total / count, truth)


def write_predictions(path: Path, found: Predictions, language: Language) -> None:
    """Writes a table: where, the label if known, the predicted label, and the probability of each class."""
    if language.template.kind == "regression":
        transform = "" if language.target_transform == "none" else f"{language.target_transform}_"
        header = [
            "where",
            *([f"{transform}label"] if found.truth is not None else []),
            f"{transform}predicted",
        ]
        columns = [
            found.where,
            *([found.truth.tolist()] if found.truth is not None else []),
            found.values.tolist(),
        ]
        write_rows(path, header, list(zip(*columns, strict=True)))
        return
    rows = []
    for i, where in enumerate(found.where):
        label = [] if found.truth is None else [language.classes[found.truth[i]]]
        answer = language.classes[int(found.values[i].argmax())]
        rows.append([where, *label, answer, *(f"{p:.6g}" for p in found.values[i])])
    known = ["label"] if found.truth is not None else []
    write_rows(path, ["where", *known, "predicted", *(f"p_{name}" for name in language.classes)], rows)


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
