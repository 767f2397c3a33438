"""The processes of a run: one by default, several where torchrun's environment says so."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# How long the others have to say that they, too, saw an exchange fail, before they are named as lost.
SECONDS_TO_REPORT = 3.0


class LostProcess(RuntimeError):
    """An exchange between the processes failed; the message names this process, those that are gone, and the cause."""


@dataclass(frozen=True)
class Processes:
    """This process's place among the `world_size` processes that train one model."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @classmethod
    def from_environment(cls) -> "Processes":
        """What torchrun set, or a single process. Raises ValueError where only a part is set."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        given = [name for name in names if name in os.environ]
        if not given:
            return cls()
        if len(given) < len(names):
            raise ValueError(
                f"{', '.join(given)} set without {', '.join(set(names) - set(given))}: start with torchrun"
            )
        return cls(*(int(os.environ[name]) for name in names))

    @contextlib.contextmanager
    def joined(self, device: torch.device, timeout_s: float) -> Iterator[None]:
        """The block runs with all processes connected (gloo on the CPU, NCCL on CUDA); one that is gone or silent for
        timeout_s seconds ends it in every other by LostProcess."""
        if self.world_size == 1:
            yield
            return
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
        try:
            yield
        except (dist.DistError, RuntimeError) as error:
            if not _is_of_an_exchange(error):
                raise
            raise LostProcess(self._who_is_gone(error, timeout_s)) from error
        finally:
            dist.destroy_process_group()

    def _who_is_gone(self, error: Exception, timeout_s: float) -> str:
        """Every process that saw the failure signs in the store; those that do not sign in time are the lost ones."""
        told = f"process {self.rank} of {self.world_size}: an exchange failed ({_first_line(error)})"
        try:
            store = dist.distributed_c10d._get_default_store()
            store.set(f"saw_failure/{self.rank}", "1")
            deadline = time.monotonic() + SECONDS_TO_REPORT
            missing = set(range(self.world_size)) - {self.rank}
            while missing and time.monotonic() < deadline:
                missing = {rank for rank in missing if not store.check([f"saw_failure/{rank}"])}
                time.sleep(0.05)
        except (dist.DistError, RuntimeError) as second:
            return f"{told}; the host of process 0 does not answer either ({_first_line(second)})"
        names = ", ".join(f"process {rank}" for rank in sorted(missing))
        return f"{told}; gone, or silent for {timeout_s:g} s: {names or 'nobody, the connection broke'}"

    def first(self, value: Any) -> Any:
        """Process 0's value, in every process."""
        if self.world_size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def share(self, count: int, what: str) -> range:
        """The part of 0 .. count - 1 that is this process's; the parts are disjoint, of one size, and are all of it.

        Raises ValueError where the count is no multiple of the number of processes.
        """
        if count % self.world_size:
            raise ValueError(f"{what} = {count} cannot be shared equally by {self.world_size} processes")
        size = count // self.world_size
        return range(self.rank * size, (self.rank + 1) * size)


def _is_of_an_exchange(error: Exception) -> bool:
    """gloo's failures are bare RuntimeErrors, told from others by their text."""
    text = str(error)
    return isinstance(error, dist.DistError) or "gloo" in text or "ProcessGroup" in text


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
