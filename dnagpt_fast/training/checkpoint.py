"""Finding and reading the checkpoints of a run, folders on disk that are complete or absent.

RUN/checkpoints/step-00001000/
    .metadata, __*.distcp   weights and optimizer state, in torch.distributed.checkpoint's format: every
                            process writes its part, and any number of processes, sharded or not, can read
                            them
    config.json             the settings and the rest of the run's record
    state.json              steps done, size and SHA-256 of each file above, to detect damage

checkpoint_writer.py writes them. .metadata and the parts of .distcp are pickles by torch; checkpoint_files.py reads
them as data, so no code in an untrusted folder runs.
"""

import os
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

from dnagpt_fast.input_files import InputFileError, check_regular, sha256_of
from dnagpt_fast.json_files import read_json
from dnagpt_fast.training.checkpoint_files import METADATA, DataPlanner, DataReader, read_metadata
from dnagpt_fast.training.torch_files import CheckpointError, cause, reason

FOLDER = "checkpoints"
NAME = re.compile(r"step-(\d{8,})")
CONFIG, STATE = "config.json", "state.json"
MODEL, OPTIMIZER = "model", "optimizer"
# A run with one process needs no warning. Set once and for all, because a thread must not change filters
# temporarily.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk. `step`: optimizer steps done."""

    path: Path
    step: int

    @property
    def config_path(self) -> Path:
        return self.path / CONFIG

    def config(self) -> dict[str, Any]:
        """The record in config.json. Raises CheckpointError where it cannot be read."""
        try:
            return read_json(self.config_path)
        except ValueError as error:
            raise CheckpointError(str(error)) from error

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Loads the weights (and the optimizer's state); all processes of a run call it, and each loads its
        part.

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
        """All weights by their state-dict names, on the CPU; needs no other process."""
        state = {
            f"{MODEL}.{name}": torch.empty(kept.shape, dtype=kept.dtype)
            for name, kept in self.shapes().items()
        }
        self._read(state, alone=True)
        return {name.removeprefix(f"{MODEL}."): tensor for name, tensor in state.items()}

    def shapes(self) -> dict[str, torch.Tensor]:
        """The weights on the meta device: names, shapes and dtypes without their memory. Raises CheckpointError."""
        return {
            name.removeprefix(f"{MODEL}."): torch.empty(kept.size, dtype=kept.properties.dtype, device="meta")
            for name, kept in self._tensors().items()
            if name.startswith(f"{MODEL}.")
        }

    def _tensors(self) -> dict[str, TensorStorageMetadata]:
        try:
            kept = read_metadata(self.path).state_dict_metadata
        except ValueError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error}") from error
        return {name: entry for name, entry in kept.items() if isinstance(entry, TensorStorageMetadata)}

    def _check(self, model_state: dict[str, Any]) -> None:
        """Compares names and shapes of the weights before anything is read. Raises CheckpointError."""
        there = {name: tuple(kept.shape) for name, kept in self.shapes().items()}
        wanted = {name: tuple(tensor.shape) for name, tensor in model_state.items()}
        wrong = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
        if wrong:
            name = wrong[0]
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise CheckpointError(
                f"{self.path} does not fit this model: {name} is {there.get(name)} in it, "
                f"{wanted.get(name)} in the model{more}"
            )

    def _read(self, state: dict[str, Any], *, alone: bool = False) -> None:
        try:
            dcp.load(
                state,
                storage_reader=DataReader(self.path),
                planner=DataPlanner(),
                no_dist=alone or not dist.is_initialized(),
            )
        except CheckpointException as error:
            raise CheckpointError(f"{self.path} cannot be read: {first_cause(error)}") from cause(error)


def first_cause(error: CheckpointException) -> str:
    """`process 1: OSError: ...`, from torch's collection of tracebacks."""
    rank, (cause, _) = min(error.failures.items(), key=lambda item: item[0])
    return f"process {rank}: {type(cause).__name__}: {reason(cause)}"


def _folders(run: Path) -> list[Path]:
    """Folders with a checkpoint's name, newest first. Raises OSError for an existing folder that cannot be
    read."""
    try:
        names = os.listdir(run / FOLDER)
    except FileNotFoundError:
        return []
    steps = sorted((int(match[1]), name) for name in names if (match := NAME.fullmatch(name)))
    return [run / FOLDER / name for _, name in reversed(steps)]


def complete(run: Path) -> list[Checkpoint]:
    """The checkpoints of a run whose files all have the right sizes, oldest first. Their contents are not
    read."""
    found = [path for path in _folders(run) if damage(path, contents=False) is None]
    return [Checkpoint(path, int(path.name.removeprefix("step-"))) for path in reversed(found)]


def examine(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest undamaged checkpoint of a run, or None; and one line for each checkpoint that cannot be
    used, with the reason: newer ones that are damaged, and older ones with missing or incomplete files."""
    newest, left_out = None, []
    for path in _folders(run):
        why = damage(path, contents=newest is None)
        if why is not None:
            left_out.append(f"{path}: {why}")
        elif newest is None:
            newest = Checkpoint(path, int(path.name.removeprefix("step-")))
    return newest, left_out


def damaged(run: Path) -> list[str]:
    """One line for each checkpoint folder that cannot be used, with the reason; see `examine`."""
    return examine(run)[1]


def damage(path: Path, *, contents: bool = True) -> str | None:
    """The reason why a checkpoint folder cannot be used; None if it can be used.

    contents=False: only the sizes of the files are compared. Checkpoints written before checksums have only
    sizes.
    """
    try:
        state = read_json(path / STATE)
        sizes, sums = state["bytes"], state.get("sha256", {})
        if METADATA not in sizes:
            return f"{STATE} does not list {METADATA}: written by another version"
        if sums and sums.keys() != sizes.keys():
            return f"{STATE} lacks the checksum of a file"
        for name, size in sizes.items():
            check_regular(path / name)
            there = (path / name).stat().st_size
            if there != size:
                return f"{name} has {there} bytes instead of {size}"
        for name in sums if contents else ():
            if sha256_of(path / name) != sums[name]:
                return f"the bytes of {name} have changed since it was written: its SHA-256 differs"
    except IsADirectoryError as error:
        return f"{Path(str(error.filename)).name} is a folder"
    except InputFileError as error:
        return str(error)
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = re.search(r"no ([\w.]+) in", str(error))
        return f"{missing[1] if missing else Path(str(error.filename)).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{STATE} cannot be read: {error}"
    return None


def newest(run: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint of a run, or None."""
    return examine(run)[0]


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens a checkpoint folder, or the newest checkpoint of a run folder. Raises CheckpointError with the
    reason."""
    if (path / STATE).is_file():
        why = damage(path)
        if why is not None:
            raise CheckpointError(f"{path} is damaged: {why}")
        step = read_json(path / STATE).get("step")
        if not isinstance(step, int):
            raise CheckpointError(f"{path / STATE} has no step number")
        return Checkpoint(path, step)
    found, left_out = examine(path)
    if found is None:
        why = "; ".join(left_out)
        raise CheckpointError(f"{path} holds no complete checkpoint{': ' if why else ''}{why}")
    return found
