"""The finished runs of learning_curves.py on disk: for each task a file with a line for each run."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stage import named_by_contents

from dnagpt_fast.training.job_folder import JobFolder, Parts

OPEN_ENDED = ("rounds", "starts", "tasks", "lrs", "chosen_at", "first_seed")
"""Settings that say which runs there are, not what they are."""


@dataclass(frozen=True)
class Run:
    """One finished run. method: a start, or a baseline; size: training labels, 0: all; values: of each tested set, the
    probability of the second class or the predicted value of each row; chosen: what was chosen on the validation rows;
    cpu_s: user and system time; lr: 0 for baselines."""

    task: str
    method: str
    size: int
    seed: int
    validation_loss: float
    chosen: dict[str, Any]
    values: dict[str, list[float]]
    cpu_s: float
    lr: float = 0.0


def find(runs: Iterable[Run], method: str, size: int, seed: int, lr: float = 0.0) -> Run | None:
    """The run of a task's runs."""
    asked = method, size, seed, lr
    return next((run for run in runs if (run.method, run.size, run.seed, run.lr) == asked), None)


def chosen_rate(settings: dict[str, Any], runs: Iterable[Run], start: str) -> float | None:
    """The learning rate of a start on a task: the one with the lowest validation loss at `chosen_at` labels; None where
    one of these runs is not finished."""
    kept, at = list(runs), (settings["chosen_at"], settings["first_seed"])
    found = [find(kept, start, *at, lr) for lr in settings["lrs"]]
    losses = {run.lr: run.validation_loss for run in found if run is not None}
    return min(losses, key=losses.__getitem__) if len(losses) == len(found) else None


def journal_path(settings: dict[str, Any], task: str, out: Path) -> Path:
    """Runs with other settings, or of a task with other settings, are in another file."""
    fixed = {key: value for key, value in settings.items() if key not in OPEN_ENDED}
    contents = json.dumps([fixed, settings["tasks"][task]], sort_keys=True)
    folder = named_by_contents(out / "runs" / task, contents)
    return folder.with_name(f"{folder.name}.jsonl")


def finished_runs(settings: dict[str, Any], task: str, out: Path) -> list[Run]:
    """What a task's file has now, while another process may write to it."""
    path = journal_path(settings, task, out)
    if not path.exists():
        return []
    with open(path, "rb") as file:
        return _whole_lines(file)[0]


class Journal:
    """A task's finished runs, and the right to add to them, which one process has at a time; `done` has them all."""

    def __init__(self, settings: dict[str, Any], task: str, out: Path) -> None:
        path = journal_path(settings, task, out)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done: list[Run] = []
        self._parts = Parts(JobFolder(path.with_suffix(""), "runs"), path, self._kept)

    def _kept(self, file: BinaryIO) -> int:
        self.done, size = _whole_lines(file)
        return size

    def append(self, run: Run) -> None:
        self._parts.append(json.dumps(asdict(run)).encode() + b"\n")
        self.done.append(run)

    def close(self) -> None:
        self._parts.close()


def _whole_lines(file: BinaryIO) -> tuple[list[Run], int]:
    """The runs, and the bytes that they take; a line cut by the end of a process is left out: its run is done again."""
    found, size = [], 0
    for line in file:
        try:
            if not line.endswith(b"\n"):
                break
            found.append(Run(**json.loads(line)))
        except (ValueError, TypeError):
            break
        size += len(line)
    return found, size
