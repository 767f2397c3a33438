"""Writes checkpoints while training continues: training waits only for a copy in host memory, a thread does
the rest.

Every process writes its part of weights and optimizer state into one temporary folder (on a file system that
all of them see). When all have finished, process 0 adds config.json and state.json with checksums, flushes
the folder to disk, reads it back and renames it. So after a kill or a crash of the machine a checkpoint is
either complete or absent; then the one before it is the newest.
"""

import errno
import json
import os
import shutil
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.storage import WriteResult

from dnagpt_fast.input_files import sha256_of
from dnagpt_fast.output_files import flush
from dnagpt_fast.training.checkpoint import (
    CONFIG,
    FOLDER,
    MODEL,
    OPTIMIZER,
    STATE,
    CheckpointError,
    complete,
    damage,
    first_cause,
)
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.tensor_files import os_errors

TEMPORARY = "tmp-"


def states_of_one_process(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What torch's get_state_dict gives for a model that is neither divided nor compiled: its weights, and the
    optimizer's state with the names of parameters in the place of their numbers. The optimizer has made a step."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    names = [name_of[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    found = optimizer.state_dict()
    state = {names[number]: of for number, of in found["state"].items()}
    groups = [{**group, "params": [names[i] for i in group["params"]]} for group in found["param_groups"]]
    return model.state_dict(), {"state": state, "param_groups": groups}


class CheckpointWriter:
    """Writes the checkpoints of one run, one at a time, and keeps the newest `keep`. All processes use it.

    Leaving the `with` block waits for the checkpoint that is being written.
    """

    def __init__(
        self, run: Path, keep: int, processes: Processes | None = None, timeout_s: float = 600.0
    ) -> None:
        self.run, self.keep = run, keep
        self.processes = processes or Processes()
        # Its exchanges run at the same time as those of the training, so they need separate connections.
        self._group = self.processes.cpu_group(timeout_s)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._in_hand: Future[None] | None = None
        if self.processes.is_main:
            for leftover in (run / FOLDER).glob(f"{TEMPORARY}*"):
                shutil.rmtree(leftover)

    def save(
        self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]
    ) -> None:
        """Starts the checkpoint after `step` steps; returns when model and optimizer may change again.

        Waits for the previous checkpoint first, and raises its error: see `wait`.
        """
        self.wait()
        folder = self.run / FOLDER
        temporary = folder / f"{TEMPORARY}step-{step:08d}"
        if self.processes.is_main:
            temporary.mkdir(parents=True, exist_ok=True)  # another process may have made it already
        # torch's function imports torch's compiler, a second of a short run
        alone = self._group is None and optimizer.state and "torch._dynamo" not in sys.modules
        weights, moments = (states_of_one_process if alone else get_state_dict)(model, optimizer)
        written = dcp.async_save(
            {MODEL: weights, OPTIMIZER: moments},
            storage_writer=_FolderWriter(temporary),
            process_group=self._group,
            no_dist=self._group is None,
        )
        assert isinstance(written, Future)  # torch returns one for this kind of writer, which copies at once
        self._in_hand = self._thread.submit(self._finish, written, temporary, step, config)

    @property
    def broken(self) -> bool:
        """Whether the current checkpoint has failed already; the next `save` or `wait` raises the reason."""
        return self._in_hand is not None and self._in_hand.done() and self._in_hand.exception() is not None

    def wait(self) -> None:
        """Waits until the current checkpoint is on disk. Raises CheckpointError in every process if it failed
        in any of them; earlier checkpoints are not changed."""
        if self._in_hand is None:
            return
        in_hand, self._in_hand = self._in_hand, None
        error = in_hand.exception()
        failed = torch.tensor(error is not None, dtype=torch.int64)
        if self._group is not None:
            dist.all_reduce(failed, group=self._group)
        if error is not None:
            raise CheckpointError(_described(error, self.run / FOLDER)) from error
        if failed:
            raise CheckpointError("the checkpoint was not written: see the message of another process")

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.wait()
            elif self._in_hand is not None and (second := self._in_hand.exception()) is not None:
                error.add_note(_described(second, self.run / FOLDER))
        finally:
            self._thread.shutdown()

    def _finish(self, written: Future[Any], temporary: Path, step: int, config: dict[str, Any]) -> None:
        try:
            written.result()  # returns when the parts of all processes are in the folder
            if self.processes.is_main:
                _complete(temporary, step, config)
                for old in complete(self.run)[: -self.keep]:
                    _remove(old.path)
        except BaseException:
            if self.processes.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            raise


class _FolderWriter(dcp.FileSystemWriter):
    """torch's writer, with OSErrors: for a full disk torch only reports that its archive has an unexpected
    position."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        with os_errors(self.path):
            return super().write_data(plan, planner)


def _complete(temporary: Path, step: int, config: dict[str, Any]) -> None:
    """Adds the files that mark the folder as complete, checks it and renames it."""
    final = temporary.with_name(temporary.name.removeprefix(TEMPORARY))
    (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    files = sorted(temporary.iterdir())
    sizes = {path.name: path.stat().st_size for path in files}
    sums = {path.name: sha256_of(path) for path in files}
    (temporary / STATE).write_text(json.dumps({"step": step, "bytes": sizes, "sha256": sums}) + "\n")
    for path in (*temporary.iterdir(), temporary):
        flush(path)
    for path in files:
        _forget(path)
    # Checked from disk before an older checkpoint is removed.
    why = damage(temporary)
    if why is not None:
        raise OSError(errno.EIO, f"read back from disk, {why}", str(temporary))
    if final.exists():
        _remove(final)
    temporary.rename(final)
    flush(final.parent)


def _forget(path: Path) -> None:
    """Asks the system to drop its cached copy of a file, so that the next read comes from the disk."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _described(error: BaseException, folder: Path) -> str:
    cause = (
        first_cause(error) if isinstance(error, CheckpointException) else f"{type(error).__name__}: {error}"
    )
    return f"the checkpoint was not written into {folder}: {cause}; those before it are untouched"


def _remove(path: Path) -> None:
    """Removes a folder. It is renamed first, so that an interrupted removal leaves nothing that looks like a
    checkpoint."""
    doomed = path.with_name(f"{TEMPORARY}old-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)
