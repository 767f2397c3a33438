"""The processes of a run: one by default, several in torchrun's environment."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, Queue
from typing import Any

import torch
import torch.distributed as dist

# The time in which the other processes must report that they also saw an exchange fail; otherwise they count
# as lost.
SECONDS_TO_REPORT = 3.0
# gloo raises bare RuntimeErrors; all have its file name in their text, except one.
OF_AN_EXCHANGE = ("gloo", "ProcessGroup", "Application timeout caused pair closure")
# The time in which the store must answer; otherwise its host, that of process 0, is named too.
SECONDS_TO_ANSWER = 5.0


class LostProcess(RuntimeError):
    """An exchange between the processes failed; the message names this process, the lost processes and the
    cause."""


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
        """From torchrun's environment, or a single process. Raises ValueError where only some variables are
        set."""
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
        """Connects all processes for the block (gloo on the CPU, NCCL on CUDA). If one is gone or silent for
        timeout_s seconds, the block ends in all others with LostProcess. Existing connections of the program
        are kept."""
        if self.world_size == 1 or dist.is_initialized():
            yield
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)  # NCCL uses this device for pickled objects
        backend = "nccl" if device.type == "cuda" else "gloo"
        wait = timedelta(seconds=timeout_s)
        dist.init_process_group(
            backend, store=self._meet(wait), rank=self.rank, world_size=self.world_size, timeout=wait
        )
        try:
            yield
        except (dist.DistError, RuntimeError) as error:
            if not _is_of_an_exchange(error):
                raise
            with _finishing():
                message = self._who_is_gone(error, timeout_s)
            raise LostProcess(message) from error
        finally:
            dist.destroy_process_group()

    def _meet(self, wait: timedelta) -> dist.Store:
        """A store without entries of an earlier start of this job. Raises LostProcess that names missing
        processes.

        torchrun keeps one store for all its restarts. With the entries of the first start, the processes of a
        second look for each other at addresses that are no longer in use (pytorch/pytorch#135712). So
        process 0 opens a new round, each other process enters the newest open round, and process 0 closes it
        when all have entered.
        """
        by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            self.world_size,
            is_master=self.is_main and not by_torchrun,
            timeout=wait,
        )
        deadline = time.monotonic() + wait.total_seconds()
        missing = list(range(1, self.world_size)) if self.is_main else [0]
        opened = store.add("rounds", 1) if self.is_main else 0
        entered = 0
        while missing:
            if time.monotonic() > deadline:
                names = ", ".join(f"process {rank}" for rank in missing)
                raise LostProcess(
                    f"process {self.rank} of {self.world_size}: not there within {wait.total_seconds():g} s: {names}"
                )
            if self.is_main:
                missing = [rank for rank in missing if not store.check([f"round {opened} has {rank}"])]
            else:
                opened = store.add("rounds", 0)
                closed = store.check([f"round {opened} is closed"])
                if opened != entered and not closed:
                    store.set(f"round {opened} has {self.rank}", "1")
                    entered = opened
                elif opened == entered and closed:
                    missing = []
            time.sleep(0.02)
        if self.is_main:
            store.set(f"round {opened} is closed", "1")
        return dist.PrefixStore(f"round {opened}", store)

    def _who_is_gone(self, error: Exception, timeout_s: float) -> str:
        """The message for a failed exchange. Every process that saw it signs in the store; those that do not
        sign in time are the lost ones."""
        message = f"process {self.rank} of {self.world_size}: an exchange failed ({_first_line(error)})"
        # In a separate thread, which is abandoned if the store's host is gone: a request to it may never
        # return.
        missing: Queue[set[int] | Exception] = Queue()
        threading.Thread(target=self._sign, args=(missing,), daemon=True).start()
        try:
            found = missing.get(timeout=SECONDS_TO_REPORT + SECONDS_TO_ANSWER)
        except Empty:
            found = TimeoutError(f"silent for {SECONDS_TO_REPORT + SECONDS_TO_ANSWER:g} s")
        if isinstance(found, Exception):
            return f"{message}; the host of process 0 does not answer either ({_first_line(found)})"
        names = ", ".join(f"process {rank}" for rank in sorted(found))
        return (
            f"{message}; gone, or silent for {timeout_s:g} s: {names or 'none of them, the connection broke'}"
        )

    def _sign(self, missing: Queue[set[int] | Exception]) -> None:
        """Puts the processes that do not sign into the queue, or the error of the request."""
        try:
            store = dist.distributed_c10d._get_default_store()
            store.set(f"saw_failure/{self.rank}", "1")
            deadline = time.monotonic() + SECONDS_TO_REPORT
            others = set(range(self.world_size)) - {self.rank}
            while others and time.monotonic() < deadline:
                others = {rank for rank in others if not store.check([f"saw_failure/{rank}"])}
                time.sleep(0.05)
        except (dist.DistError, RuntimeError) as error:
            missing.put(error)
        else:
            missing.put(others)

    def cpu_group(self, timeout_s: float) -> dist.ProcessGroup | None:
        """Connections for data in host memory, separate from those of the training; None for one process.

        All processes must call it."""
        if self.world_size == 1:
            return None
        return dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))

    def first(self, value: Any) -> Any:
        """Process 0's value, in every process."""
        if self.world_size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def of_all(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of rank, in every process."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def share(self, count: int, what: str) -> range:
        """This process's part of 0 .. count - 1; the parts of all processes have one size and cover the
        range.

        Raises ValueError where the count is no multiple of the number of processes.
        """
        if count % self.world_size:
            raise ValueError(f"{what} = {count} cannot be shared equally by {self.world_size} processes")
        size = count // self.world_size
        return range(self.rank * size, (self.rank + 1) * size)


@contextlib.contextmanager
def _finishing() -> Iterator[None]:
    """Ignores SIGTERM, which torchrun sends as soon as one process is gone: the others end with an error
    anyway, but first report which processes are lost."""
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _is_of_an_exchange(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, dist.DistError) or any(part in text for part in OF_AN_EXCHANGE)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
