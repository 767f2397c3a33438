"""Checkpoints of a run as they lie on disk: folders that are there whole or not at all; finding and reading them.

RUN/checkpoints/step-00001000/
    .metadata, __*.distcp   weights and optimizer state, in torch.distributed.checkpoint's format: every process wrote
                            what it held, and any number of processes, sharded or not, reads what it needs
    config.json             the settings and everything else that the run is made of
    state.json              steps done, and the size of each file above, to tell a damaged folder

checkpoint_writer.py writes them. .metadata is a pickle: read checkpoints of people you trust, and pass models on in a
form without code (forms.py).
"""

import json
import pickle
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_state_dict, set_state_dict

FOLDER = "checkpoints"
NAME = re.compile(r"step-(\d{8,})")
CONFIG, STATE, METADATA = "config.json", "state.json", ".metadata"
MODEL, OPTIMIZER = "model", "optimizer"
# One process by itself is no reason for a warning. For good, because a thread may not change filters for a while.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


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
        """Puts the weights (and the optimizer's state) back; all processes of a run at once, each its share.

        Raises CheckpointError where they do not fit.
        """
        if optimizer is None:
            state: dict[str, Any] = {MODEL: get_model_state_dict(model)}
        else:
            weights, moments = get_state_dict(model, optimizer)
            state = {MODEL: weights, OPTIMIZER: moments}
        self._check(state[MODEL])
        self._read(state)
        if optimizer is None:
            model.load_state_dict(state[MODEL])
        else:
            set_state_dict(model, optimizer, model_state_dict=state[MODEL], optim_state_dict=state[OPTIMIZER])

    def weights(self) -> dict[str, torch.Tensor]:
        """The whole weights by their state-dict names, on the CPU; needs no other process."""
        prefix = f"{MODEL}."
        state = {
            name: torch.empty(kept.size, dtype=kept.properties.dtype)
            for name, kept in self._tensors().items()
            if name.startswith(prefix)
        }
        self._read(state, alone=True)
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}

    def _tensors(self) -> dict[str, TensorStorageMetadata]:
        try:
            kept = dcp.FileSystemReader(self.path).read_metadata().state_dict_metadata
        except (pickle.UnpicklingError, EOFError, AttributeError, ImportError) as error:
            raise CheckpointError(f"{self.path / METADATA} cannot be read: {error}") from error
        return {name: entry for name, entry in kept.items() if isinstance(entry, TensorStorageMetadata)}

    def _check(self, model_state: dict[str, Any]) -> None:
        """Names and shapes of the weights, before anything is read."""
        there = {name: tuple(entry.size) for name, entry in self._tensors().items()}
        wanted = {f"{MODEL}.{name}": tuple(tensor.shape) for name, tensor in model_state.items()}
        there = {name: size for name, size in there.items() if name.startswith(f"{MODEL}.")}
        wrong = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
        if wrong:
            name = wrong[0]
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise CheckpointError(
                f"{self.path} does not fit this model: {name.removeprefix(f'{MODEL}.')} is {there.get(name)} in it, "
                f"{wanted.get(name)} in the model{more}"
            )

    def _read(self, state: dict[str, Any], *, alone: bool = False) -> None:
        try:
            dcp.load(
                state,
                storage_reader=dcp.FileSystemReader(self.path),
                no_dist=alone or not dist.is_initialized(),
            )
        except CheckpointException as error:
            raise CheckpointError(f"{self.path} cannot be read: {first_cause(error)}") from error


def first_cause(error: CheckpointException) -> str:
    """`process 1: OSError: ...`, out of torch's collection of tracebacks."""
    rank, (cause, _) = min(error.failures.items(), key=lambda item: item[0])
    return f"process {rank}: {type(cause).__name__}: {cause}"


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
        if METADATA not in sizes:
            return f"{STATE} names no {METADATA}: written by another version"
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
    """The newest undamaged checkpoint of a run, None where there is none."""
    checkpoints = complete(run)
    return checkpoints[-1] if checkpoints else None


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint folder, or the newest checkpoint of a run folder. Raises CheckpointError that says what is wrong."""
    if (path / STATE).is_file():
        reason = damage(path)
        if reason is not None:
            raise CheckpointError(f"{path} is damaged: {reason}")
        return Checkpoint(path, json.loads((path / STATE).read_text())["step"])
    found = newest(path)
    if found is None:
        told = "; ".join(damaged(path))
        raise CheckpointError(f"{path} holds no complete checkpoint{': ' if told else ''}{told}")
    return found
