"""Checkpoints of a run: folders that appear whole or not at all, the newest few of which stay.

RUN/checkpoints/step-00001000/
    model.safetensors   the weights, by their state-dict names
    optimizer.pt        the optimizer's state
    config.json         the settings and everything else that the run is made of
    state.json          steps done, and the size of each file above, to tell a damaged folder

A folder is written under a temporary name, flushed to disk, then renamed: after a kill or a crash of the machine either
the whole of it is there or the one before it is the newest.
"""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

FOLDER = "checkpoints"
NAME = re.compile(r"step-(\d{8,})")
MODEL, OPTIMIZER, CONFIG, STATE = "model.safetensors", "optimizer.pt", "config.json", "state.json"
TEMPORARY = "tmp-"


class CheckpointError(ValueError):
    """A checkpoint that is damaged or belongs to something else; the message names the folder and the reason."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk. `step`: optimizer steps done."""

    path: Path
    step: int

    def config(self) -> dict[str, Any]:
        return json.loads((self.path / CONFIG).read_text())

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Puts the weights (and the optimizer's state) back. Raises CheckpointError where they do not fit."""
        try:
            model.load_state_dict(load_file(self.path / MODEL))
            if optimizer is not None:
                state = torch.load(self.path / OPTIMIZER, map_location="cpu", weights_only=True)
                optimizer.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{self.path} does not fit this model: {error}") from error


def save(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: dict[str, Any],
    keep: int,
) -> Checkpoint:
    """Writes the checkpoint of `step` steps done and removes all but the newest `keep`. Raises OSError (disk full ...),
    in which case the older ones are untouched."""
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:08d}"
    temporary = folder / f"{TEMPORARY}{final.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
        save_file(tensors, temporary / MODEL)
        torch.save(optimizer.state_dict(), temporary / OPTIMIZER)
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        sizes = {name: (temporary / name).stat().st_size for name in (MODEL, OPTIMIZER, CONFIG)}
        (temporary / STATE).write_text(json.dumps({"step": step, "bytes": sizes}) + "\n")
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        if final.exists():
            _remove(final)
        temporary.rename(final)
        _flush(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in complete(run)[:-keep]:
        _remove(old.path)
    return Checkpoint(final, step)


def complete(run: Path) -> list[Checkpoint]:
    """The undamaged checkpoints of a run, oldest first."""
    found = []
    for path in sorted((run / FOLDER).glob("step-*")):
        if NAME.fullmatch(path.name) and damage(path) is None:
            found.append(Checkpoint(path, int(path.name.removeprefix("step-"))))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def damaged(run: Path) -> list[str]:
    """One line for each checkpoint folder that cannot be used, saying why."""
    found = []
    for path in sorted((run / FOLDER).glob("step-*")):
        reason = damage(path)
        if reason is not None:
            found.append(f"{path}: {reason}")
    return found


def damage(path: Path) -> str | None:
    """Why a checkpoint folder cannot be used; None where it can."""
    try:
        sizes = json.loads((path / STATE).read_text())["bytes"]
        for name, size in sizes.items():
            there = (path / name).stat().st_size
            if there != size:
                return f"{name} has {there} bytes instead of {size}"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        return f"{STATE} cannot be read: {error}"
    return None


def newest(run: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint of a run, None where there is none. Leftovers of interrupted writes vanish."""
    for leftover in (run / FOLDER).glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover)
    checkpoints = complete(run)
    return checkpoints[-1] if checkpoints else None


def _remove(path: Path) -> None:
    """Renamed first: a removal that is interrupted leaves nothing that looks like a checkpoint."""
    doomed = path.with_name(f"{TEMPORARY}old-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
