"""The way `tuned`: a model fine-tuned on a labelled task by our own fine-tuning, with the learning rate chosen on the
dev rows, and several seeds."""

import csv
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from dnagpt_fast.finetune.data.examples import fit_length
from dnagpt_fast.finetune.data.settings import LabelledDataSettings
from dnagpt_fast.finetune.data.tables import write_rows
from dnagpt_fast.finetune.run import finetune
from dnagpt_fast.finetune.settings import (
    FinetuneConfig,
    FinetuneOptimizerSettings,
    FinetuneRunSettings,
    FinetuneTaskSettings,
)
from dnagpt_fast.finetune.templates import TaskTemplate
from dnagpt_fast.json_files import read_json
from dnagpt_fast.suites.subjects import HowToRun, OwnModel, Subject
from dnagpt_fast.suites.task import Prediction, Task
from dnagpt_fast.training.settings import StartSettings
from dnagpt_fast.vocab import species_token
from dnagpt_fast.weights.forms import save_model

SPLITS = {"train": "train", "dev": "validation", "test": "test"}


@dataclass(frozen=True)
class Tuning:
    """lrs: learning rates; the one with the lowest dev loss is kept. seeds: number of runs with it, of which the first
    one also serves to choose it. on_long: as data.on_long. The rest as in the section [run] of fine-tuning."""

    lrs: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    seeds: int = 3
    epochs: int = 5
    batch_size: int = 32
    on_long: str = "error"
    species: str = "human"


def check_tuning(task: Task, subject: Subject, tuning: Tuning) -> None:
    """Raises ValueError for a model that cannot be tuned here, LabelError for sequences over its limit."""
    if not isinstance(subject, OwnModel):
        raise ValueError(
            f"{subject.name}: --way tuned is for our own models; foreign ones can be used frozen"
        )
    template = TaskTemplate("classification", species_token(tuning.species), subject.tokenizer.vocabulary, 0)
    for rows in task.examples.values():
        fit_length(rows, template.longest_bp(subject.model.max_len), tuning.on_long)


def tune(task: Task, subject: OwnModel, tuning: Tuning, runs: Path, how: HowToRun) -> Prediction:
    """The probabilities of the test rows by each seed. Folders of runs are kept in `runs` until the evaluation ends, so
    that a resumed evaluation goes on inside a run."""
    safe = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in subject.name)
    folder = runs / f"{task.name}-{safe}"
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "rows.tsv"
    if not table.exists():
        rows = [
            (text, label, SPLITS[part])
            for part, examples in task.examples.items()
            for text, label in zip(examples.sequence, examples.label or (), strict=True)
        ]
        write_rows(table, ["sequence", "label", "split"], rows)
    start = folder / "start"
    if not start.exists():
        save_model(subject.model, subject.tokenizer, start, "folder")
    config = FinetuneConfig(
        start=StartSettings(path=str(start)),
        task=FinetuneTaskSettings(kind="classification", species=tuning.species),
        data=LabelledDataSettings(path=str(table), on_long=tuning.on_long, on_n="keep"),
        optimizer=FinetuneOptimizerSettings(),
        run=FinetuneRunSettings(
            epochs=tuning.epochs, warmup_epochs=min(1.0, tuning.epochs / 2), batch_size=tuning.batch_size,
            evaluation_batch_size=128, device=how.device or "auto", keep=1,
        ),
    )  # fmt: skip
    found = tuned_runs(config, tuning.lrs, tuning.seeds, folder, first_seed=how.seed)
    classes: Sequence[str] = task.facts["classes"]
    values = [read_probabilities(run / "predictions.tsv", classes, task.rows) for run in found.folders]
    return Prediction(values, found.chosen())


@dataclass(frozen=True)
class TunedRuns:
    """Finished runs with the chosen learning rate, one for each seed. losses: learning rate -> validation loss of the
    first seed."""

    folders: list[Path]
    lr: float
    losses: dict[float, float]

    def chosen(self) -> dict[str, float]:
        """The chosen rate, and the loss of every rate, for a report."""
        return {"lr": self.lr, **{f"dev_loss at {lr:g}": loss for lr, loss in self.losses.items()}}


def tuned_runs(
    config: FinetuneConfig, lrs: Sequence[float], seeds: int, folder: Path, *, first_seed: int = 0
) -> TunedRuns:
    """One run for each rate; the rate with the lowest validation loss has further runs, `seeds` in all. Finished runs
    in `folder` are taken as they are, others are continued."""
    losses = {lr: _loss(_tuned(config, lr, first_seed, folder)) for lr in lrs}
    best = min(losses, key=losses.__getitem__)
    return TunedRuns([_tuned(config, best, first_seed + i, folder) for i in range(seeds)], best, losses)


def _tuned(config: FinetuneConfig, lr: float, seed: int, folder: Path) -> Path:
    """The folder of the run with this rate and seed, finished."""
    run = folder / f"lr{lr:g}-seed{seed}"
    if not (run / "results.json").exists():
        settings = replace(
            config, optimizer=replace(config.optimizer, lr=lr), run=replace(config.run, seed=seed, runs=1)
        )
        (outcome,) = finetune(
            settings, run, resume=(run / "config.json").exists(), console=Console(quiet=True)
        )
        if outcome.stopped_by is not None:
            raise SystemExit(128 + signal.Signals[outcome.stopped_by])
    return run


def _loss(run: Path) -> float:
    return float(read_json(run / "results.json")["validation_loss"])


def read_probabilities(path: Path, classes: Sequence[str], rows: int) -> np.ndarray:
    """float64 (rows, C) of a table of predictions, in the order of the rows. Raises ValueError for another number."""
    with open(path, newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file, delimiter="\t"))
    found.sort(key=lambda row: int(row["where"].rsplit(":", 1)[1]))
    if len(found) != rows:
        raise ValueError(f"{path} has {len(found)} rows: wanted {rows}")
    return np.array([[float(row[f"p_{name}"]) for name in classes] for row in found])
