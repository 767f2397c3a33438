"""The loss curve of a fine-tuning run, beside the loss of an answer that does not read the sequence."""

from pathlib import Path

import numpy as np

from dnagpt_fast.finetune.job import FinetuneRun
from dnagpt_fast.training.log import read_metrics
from dnagpt_fast.training.loss_curve import draw_losses

UNITS = {
    "classification": "loss (nats per row)",
    "regression": "loss (squared error, standard deviations²)",
    "tagging": "loss (nats per k-mer)",
    "generation": "loss (nats per base pair)",
}


def draw_finetuning(job: FinetuneRun, run: Path, *, vector: bool = True) -> None:
    """RUN/loss.png. The training loss of generation is a mean over tokens: it is divided by k, so that it has the unit
    of the validation loss."""
    kind = job.config.task.kind
    points = [
        (line["step"] + 1, line["validation_loss"]) for line in read_metrics(run) if "validation_loss" in line
    ]
    draw_losses(
        run,
        "loss",
        UNITS[kind],
        _unknowing(job),
        {"validation": points} if points else None,
        title=f"fine-tuning ({kind}): {run.resolve().name}",
        scale=1 / job.prepared.language.template.vocabulary.k if kind == "generation" else 1.0,
        vector=vector,
    )


def _unknowing(job: FinetuneRun) -> dict[str, float]:
    """The validation loss of an answer that does not read the sequence: shares of the classes, or the mean, of the
    training rows."""
    kind, sets = job.config.task.kind, job.prepared.sets
    train, validation = sets["train"], job.validation
    if kind == "regression":
        return {"training mean": float((validation.targets.astype(np.float64) ** 2).mean())}
    if kind == "classification":
        classes = len(job.prepared.language.classes)
        shares = np.bincount(train.targets, minlength=classes) / len(train)
        return {"class shares": float(-np.log(shares[validation.targets]).mean())}
    return {}
