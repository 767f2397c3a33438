"""Writing checkpoints while the training goes on: a copy in the host's memory is taken, the rest is done by a thread.

Every process writes its share of weights and optimizer state into one temporary folder (a file system that all of them
see); when all are done, process 0 adds config.json and state.json with checksums, flushes the folder to disk, reads it
back and renames it. So after a kill or a crash of the machine either the whole of a checkpoint is there
or the one before it is the newest.
"""

import errno
import json
import os
import shutil
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


class CheckpointWriter:
    """Writes the checkpoints of one run, one at a time, and keeps the newest `keep`. Used by all processes alike.

    Leaving the `with` block waits for the one in hand.
    """

    def __init__(
        self, run: Path, keep: int, processes: Processes | None = None, timeout_s: float = 600.0
    ) -> None:
        self.run, self.keep = run, keep
        self.processes = processes or Processes()
        # Its exchanges run beside those of the training, so they need connections of their own.
        self._group = self.processes.cpu_group(timeout_s)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._in_hand: Future[None] | None = None
        if self.processes.is_main:
            for leftover in (run / FOLDER).glob(f"{TEMPORARY}*"):
                shutil.rmtree(leftover)

    def save(
        self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]
    ) -> None:
        """Begins the checkpoint of `step` steps done; returns when model and optimizer may change again.

        Waits for the one before, and raises what went wrong with it: see `wait`.
        """
        self.wait()
        folder = self.run / FOLDER
        temporary = folder / f"{TEMPORARY}step-{step:08d}"
        if self.processes.is_main:
            temporary.mkdir(parents=True, exist_ok=True)  # whichever process comes first makes it
        weights, moments = get_state_dict(model, optimizer)
        written = dcp.async_save(
            {MODEL: weights, OPTIMIZER: moments},
            storage_writer=_FolderWriter(temporary),
            process_group=self._group,
            no_dist=self._group is None,
        )
        assert isinstance(written, Future)  # as this writer is, whose copy is taken at once
        self._in_hand = self._thread.submit(self._finish, written, temporary, step, config)

    @property
    def broken(self) -> bool:
        """The checkpoint in hand has failed already; the next `save` or `wait` says why."""
        return self._in_hand is not None and self._in_hand.done() and self._in_hand.exception() is not None

    def wait(self) -> None:
        """Until the checkpoint in hand is on disk. Raises CheckpointError in every process if it failed in any; those
        before it are untouched."""
        if self._in_hand is None:
            return
        in_hand, self._in_hand = self._in_hand, None
        error = in_hand.exception()
        failed = torch.tensor(error is not None, dtype=torch.int64)
        if self._group is not None:
            dist.all_reduce(failed, group=self._group)
        if error is not None:
            raise CheckpointError(_described(error)) from error
        if failed:
            raise CheckpointError("the checkpoint was not written: another process tells why")

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.wait()
            elif self._in_hand is not None and (second := self._in_hand.exception()) is not None:
                error.add_note(_described(second))
        finally:
            self._thread.shutdown()

    def _finish(self, written: Future[Any], temporary: Path, step: int, config: dict[str, Any]) -> None:
        try:
            written.result()  # when the shares of all processes are in the folder
            if self.processes.is_main:
                _complete(temporary, step, config)
                for old in complete(self.run)[: -self.keep]:
                    _remove(old.path)
        except BaseException:
            if self.processes.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            raise


class _FolderWriter(dcp.FileSystemWriter):
    """torch's, which for a full disk reports that its archive has an unexpected position."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        with os_errors(self.path):
            return super().write_data(plan, planner)


def _complete(temporary: Path, step: int, config: dict[str, Any]) -> None:
    """Gives the folder what marks it as whole, and its name."""
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
    # What the disk gives back, before an older checkpoint is removed for this one.
    why = damage(temporary)
    if why is not None:
        raise OSError(errno.EIO, f"read back from disk, {why}", str(temporary))
    if final.exists():
        _remove(final)
    temporary.rename(final)
    flush(final.parent)


def _forget(path: Path) -> None:
    """Asks the system to drop its copy of a file that is on disk, so that the next reading comes from there."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _described(error: BaseException) -> str:
    cause = (
        first_cause(error) if isinstance(error, CheckpointException) else f"{type(error).__name__}: {error}"
    )
    return f"the checkpoint was not written: {cause}; those before it are untouched"


def _remove(path: Path) -> None:
    """Renamed first: a removal that is interrupted leaves nothing that looks like a checkpoint."""
    doomed = path.with_name(f"{TEMPORARY}old-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)
