"""The processes of a run: one by default, several where torchrun's environment says so."""

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

# How long the others have to say that they, too, saw an exchange fail, before they are named as lost.
SECONDS_TO_REPORT = 3.0
# What gloo's errors, bare RuntimeErrors, have in their text: its own file's name, but for this one.
OF_AN_EXCHANGE = ("gloo", "ProcessGroup", "Application timeout caused pair closure")
# How long the store may be silent before its host, process 0's, is named too.
SECONDS_TO_ANSWER = 5.0


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
        timeout_s seconds ends it in every other by LostProcess. Within a program that has connected them already they
        stay as they are."""
        if self.world_size == 1 or dist.is_initialized():
            yield
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)  # where NCCL puts what has no device, such as pickled objects
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
        """A store that holds nothing of an earlier start of this job. Raises LostProcess naming who did not come.

        torchrun keeps one store for all its restarts, and by what the first start left in it the processes of a second
        look for each other at addresses that nobody listens to any more (pytorch/pytorch#135712). So process 0 opens a
        new round, each other one enters the newest round that is still open, and process 0 closes it behind them.
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
        """Every process that saw the failure signs in the store; those that do not sign in time are the lost ones."""
        message = f"process {self.rank} of {self.world_size}: an exchange failed ({_first_line(error)})"
        # In a thread of its own, left to itself where the store's host is gone: a request to it may wait for ever.
        missing: Queue[set[int] | Exception] = Queue()
        threading.Thread(target=self._sign, args=(missing,), daemon=True).start()
        try:
            found = missing.get(timeout=SECONDS_TO_REPORT + SECONDS_TO_ANSWER)
        except Empty:
            found = TimeoutError(f"silent for {SECONDS_TO_REPORT + SECONDS_TO_ANSWER:g} s")
        if isinstance(found, Exception):
            return f"{message}; the host of process 0 does not answer either ({_first_line(found)})"
        names = ", ".join(f"process {rank}" for rank in sorted(found))
        return f"{message}; gone, or silent for {timeout_s:g} s: {names or 'nobody, the connection broke'}"

    def _sign(self, missing: Queue[set[int] | Exception]) -> None:
        """Answers with those who do not sign, or with what went wrong in asking."""
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
        """Connections beside those of the training, for what lies in the host's memory; None for one process.

        Made by all processes at once."""
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
        """The part of 0 .. count - 1 that is this process's; the parts are disjoint, of one size, and are all of it.

        Raises ValueError where the count is no multiple of the number of processes.
        """
        if count % self.world_size:
            raise ValueError(f"{what} = {count} cannot be shared equally by {self.world_size} processes")
        size = count // self.world_size
        return range(self.rank * size, (self.rank + 1) * size)


@contextlib.contextmanager
def _finishing() -> Iterator[None]:
    """torchrun sends SIGTERM as soon as one process is gone; those that are left end by themselves, but first they say
    whom they miss."""
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
