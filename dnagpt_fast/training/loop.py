"""The training loop over a module that gives losses, an optimizer and a function from (step, part) to a
batch.

It does not depend on the content of a batch or on the losses.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import nn

from dnagpt_fast.training.figures import StageClock
from dnagpt_fast.training.parallel import clip_norm, without_exchange
from dnagpt_fast.training.processes import Processes

# Most samples in a message. The batch of a failed step is made again from its indices, so nothing is stored
# before.
MAX_NAMED = 100


class NonFiniteLoss(RuntimeError):
    """A loss or gradient that is NaN or infinite; the message names the step, the process and the samples."""


@dataclass(frozen=True)
class StepReport:
    """The result of one optimizer step. losses: means over the micro-batches of all processes, by name. stop:
    whether the run ends after this step."""

    step: int
    losses: dict[str, float]
    lr: float
    grad_norm: float
    seconds: float
    stop: bool


@dataclass
class StopRequest:
    """A request to end the loop after the current step: by SIGTERM, SIGINT or SIGHUP, or because a checkpoint
    could not be written."""

    signal_name: str | None = None
    checkpoint_failed: bool = False

    @property
    def asked(self) -> bool:
        return self.signal_name is not None or self.checkpoint_failed

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Catches SIGTERM, SIGINT and, unless nohup ignores it, SIGHUP; a second SIGINT acts as without this
        handler. More of the others change nothing: Slurm sends a SIGTERM to every process of a job, and then
        torchrun, which also got one, sends another."""
        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            previous[signal.SIGHUP] = signal.getsignal(signal.SIGHUP)

        def note(number: int, _: FrameType | None) -> None:
            self.signal_name = signal.Signals(number).name
            signal.signal(signal.SIGINT, previous[signal.SIGINT])

        for number in previous:
            signal.signal(number, note)
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@dataclass
class Loop:
    """The loop and its parts.

    losses_of   module: batch -> dict of scalar tensors; `loss` is minimised, the others are reported
    batch_at    (step, part) -> batch of this process; a pure function, so a step can be repeated
    lr_at       step -> learning rate
    parts       micro-batches of this process in one step; the step's gradient is the mean over them and all processes
    describe    batch -> one line per sample, for error messages
    clock       records where each stage of a step starts
    """

    losses_of: nn.Module
    optimizer: torch.optim.Optimizer
    batch_at: Callable[[int, int], Any]
    lr_at: Callable[[int], float]
    describe: Callable[[Any], list[str]]
    parts: int = 1
    clip_norm: float = 1.0
    bf16: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: Processes = field(default_factory=Processes)
    clock: StageClock = field(default_factory=lambda: StageClock(torch.device("cpu")))

    def run(self, first_step: int, steps: int, stop: StopRequest) -> Iterator[StepReport]:
        """Runs steps first_step .. steps - 1, with a report after each; ends early after a step with a stop
        request.

        Raises NonFiniteLoss before the optimizer uses such a gradient.
        """
        for step in range(first_step, steps):
            report = self.one_step(step, stop)
            yield report
            if report.stop:
                return

    def one_step(self, step: int, stop: StopRequest) -> StepReport:
        began = time.perf_counter()
        self.clock.begin(step)
        self.clock.mark("optimizer")
        lr = self.lr_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        part_losses = []
        for part in range(self.parts):
            losses = self._backward(step, part)
            part_losses.append(losses["loss"])
            for name, value in losses.items():
                sums[name] = sums[name] + value if name in sums else value
        self.clock.mark("optimizer")
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = clip_norm(trained, self.clip_norm)
        self.clock.mark("communication")
        means, grad_norm, finite, stop_asked = self._agree(sums, norm, stop)
        if not finite:
            self._refuse(step, part_losses, grad_norm)
        self.clock.mark("optimizer")
        self.optimizer.step()
        self.clock.end()
        return StepReport(step, means, lr, grad_norm, time.perf_counter() - began, stop_asked)

    def _backward(self, step: int, part: int) -> dict[str, torch.Tensor]:
        self.clock.mark("data")
        batch = self.batch_at(step, part)
        self.clock.mark("forward")
        last = part == self.parts - 1
        with contextlib.nullcontext() if last else without_exchange(self.losses_of):
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                losses = self.losses_of(batch)
            self.clock.mark("backward")
            (losses["loss"] / self.parts).backward()
        if last:
            self.clock.mark_reduced()
        return {name: value.detach() for name, value in losses.items()}

    def _agree(
        self, sums: dict[str, torch.Tensor], norm: torch.Tensor, stop: StopRequest
    ) -> tuple[dict[str, float], float, bool, bool]:
        """Means over parts and processes, the norm, whether all values of all processes are finite, and
        whether any process has a stop request.

        One exchange of a few numbers, and the step's only wait for the device."""
        values = torch.stack([*(value.double() for value in sums.values()), norm.double().to(self.device)])
        # A NaN would make the sum NaN in every process, so it is flagged before summing.
        bad = (~torch.isfinite(values)).any().double()
        asked = torch.tensor(float(stop.asked), dtype=torch.float64, device=self.device)
        shared = self.processes.sum(torch.stack([*values, bad, asked])).tolist()
        *totals, norms, any_bad, any_asked = (value / self.processes.world_size for value in shared)
        means = {name: value / self.parts for name, value in zip(sums, totals, strict=True)}
        return means, norms, any_bad == 0, any_asked > 0

    def _refuse(self, step: int, part_losses: list[torch.Tensor], norm: float) -> None:
        """Raises NonFiniteLoss. One non-finite loss makes the gradients of all processes non-finite, so the
        processes first find out whose loss it was."""
        values = [float(loss) for loss in part_losses]
        guilty = [part for part, value in enumerate(values) if not math.isfinite(value)]
        where = f"step {step}, process {self.processes.rank} of {self.processes.world_size}"
        culprits = [rank for rank, bad in enumerate(self.processes.of_all(bool(guilty))) if bad]
        if culprits and not guilty:
            names = ", ".join(f"process {rank}" for rank in culprits)
            raise NonFiniteLoss(f"{where}: stopped because of {names}, whose loss is not finite")
        what = f"the loss is {values[guilty[0]]}" if guilty else f"the norm of the gradient is {norm}"
        lines = [
            line for part in guilty or range(self.parts) for line in self.describe(self.batch_at(step, part))
        ]
        more = [f"and {len(lines) - MAX_NAMED} more"] if len(lines) > MAX_NAMED else []
        named = "\n".join(f"  {line}" for line in [*lines[:MAX_NAMED], *more])
        raise NonFiniteLoss(
            f"{where}: {what}; the weights are still those before this step. Samples:\n{named}"
        )
