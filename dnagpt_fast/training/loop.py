"""The training loop over a module that gives losses, an optimizer and a function from (step, part) to a
batch.

It does not depend on the content of a batch or on the losses.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import torch
from torch import nn

from dnagpt_fast.training.figures import StageClock
from dnagpt_fast.training.parallel import gradient_norm, without_exchange
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.readings import Reading
from dnagpt_fast.training.step_graph import WARM_STEPS, StepGraph

# Most samples in a message. The batch of a failed step is made again from its indices, so nothing is stored
# before.
MAX_NAMED = 100
# Added to the norm before the division, as torch.nn.utils.clip_grad_norm_ does.
CLIP_EPS = 1e-6


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


# The names of a step's losses, the numbers of `Begun`, the losses of its parts.
Work = tuple[tuple[str, ...], torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Begun:
    """A step whose work is queued on the device, and whose numbers may not be known yet.

    numbers      means of the losses, norm, whether any process has a value that is not finite, and whether any has a
                 stop request, each times the number of processes
    part_losses  the loss of each part of this process, for a message
    asked        whether this process had a stop request when the step began
    """

    step: int
    lr: float
    names: tuple[str, ...]
    numbers: Reading
    part_losses: Reading
    asked: bool


def _always(done: int) -> bool:
    return True


def _one_way(step: int) -> None:
    return None


@dataclass
class Loop:
    """The loop and its parts.

    losses_of   module: batch -> dict of scalar tensors; `loss` is minimised, the others are reported
    optimizer   one that takes `grad_scale` and `found_inf` as torch.amp.GradScaler sets them, such as a fused one
    batch_at    (step, part) -> batch of this process; a pure function, so a step can be repeated. With `graph` the step
                is also given as an int64 on the device
    lr_at       step -> learning rate
    parts       micro-batches of this process in one step; the step's gradient is the mean over them and all processes
    describe    batch -> one line per sample, for error messages
    late        a step's numbers are read when the next step has been queued, so the device never waits for the host;
                None: on CUDA only
    clock       records where each stage of a step starts; not with `graph`
    graph       records a whole step and repeats it with new samples and another rate; None: each step is launched anew.
                For one process
    variant     step -> what else decides a step's kernels: where it changes, the step is recorded again

    A step with a loss or gradient that is not finite changes nothing: the optimizer decides on the device, from a flag
    that also holds for all later steps, because the host may read it after the next step has been queued.
    """

    losses_of: nn.Module
    optimizer: torch.optim.Optimizer
    batch_at: Callable[[Any, int], Any]
    lr_at: Callable[[int], float]
    describe: Callable[[Any], list[str]]
    parts: int = 1
    clip_norm: float = 1.0
    bf16: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: Processes = field(default_factory=Processes)
    clock: StageClock = field(default_factory=lambda: StageClock(torch.device("cpu")))
    late: bool | None = None
    graph: StepGraph | None = None
    variant: Callable[[int], Any] = _one_way

    def __post_init__(self) -> None:
        if not getattr(self.optimizer, "_step_supports_amp_scaling", False):
            raise TypeError(
                f"the optimizer is {type(self.optimizer).__name__}: wanted one that takes grad_scale and found_inf, "
                "such as torch.optim.AdamW(fused=True)"
            )
        if self.late is None:
            self.late = self.device.type == "cuda"
        if self.graph is not None and self.processes.world_size > 1:
            raise ValueError("a recorded step is for one process: its exchanges are not recorded")
        # The kernels of a step read these from device memory, so that they need nothing from the host.
        self._step = torch.zeros((), dtype=torch.int64, device=self.device)
        self._lr = torch.zeros((), device=self.device)
        self._asked = torch.zeros((), dtype=torch.float64, device=self.device)
        self._broken = torch.zeros((), device=self.device)  # 1 from the first step on that was not finite
        self._warm_steps = 0
        self._recorded: Work | None = None
        self._variant: Any = None

    def run(
        self, first_step: int, steps: int, stop: StopRequest, pause: Callable[[int], bool] = _always
    ) -> Iterator[StepReport]:
        """Runs steps first_step .. steps - 1, with a report of each; ends early after a step with a stop request.

        pause  steps done -> whether the caller looks at weights or optimizer when it gets that report: then no later
               step has begun. At all others, with `late`, the next step has. The last report always pauses.

        Raises NonFiniteLoss; the weights are then those before that step.
        """
        unread: Begun | None = None
        since = time.perf_counter()
        for step in range(first_step, steps):
            begun = self.begin(step, stop)
            stopping = False
            if unread is not None:
                report = self.report(unread, since)
                since, stopping = time.perf_counter(), report.stop
                yield replace(report, stop=False)
            unread = begun
            alone = begun.asked and self.processes.world_size == 1
            if not self.late or stopping or alone or step == steps - 1 or pause(step + 1):
                report, unread = self.report(begun, since), None
                yield replace(report, stop=report.stop or stopping)
                if report.stop or stopping:
                    return
                since = time.perf_counter()

    def one_step(self, step: int, stop: StopRequest) -> StepReport:
        """A single step and its numbers."""
        since = time.perf_counter()
        return self.report(self.begin(step, stop), since)

    def begin(self, step: int, stop: StopRequest) -> Begun:
        """Queues a step: batch, forward, backward, update. Does not wait for the device."""
        lr, asked = self.lr_at(step), stop.asked
        # `fill_` writes on the device; a tensor made from a number is a copy that waits for it.
        self._asked.fill_(float(asked))
        if self.graph is None:
            self.clock.begin(step)
            self.clock.mark("optimizer")
            names, shared, part_losses = self._work(step, lr)
        else:
            self._step.fill_(step)
            self._lr.fill_(lr)
            names, shared, part_losses = self._repeated(self.graph, self.variant(step))
        self._set_lr(lr)  # a number, in every checkpoint
        begun = Begun(step, lr, names, Reading(shared), Reading(part_losses), asked)
        self.clock.end()
        return begun

    def _repeated(self, graph: StepGraph, variant: Any) -> Work:
        """The step by the graph; the first ones, and the first after a change of variant, are launched."""

        def work() -> Work:
            return self._work(self._step, self._lr)

        if self._warm_steps < WARM_STEPS or variant != self._variant:
            self._warm_steps = self._warm_steps + 1 if variant == self._variant else 1
            self._variant, self._recorded = variant, None
            return graph.warm(work)
        if self._recorded is None:
            self._recorded = self._captured(graph, work)
        graph.replay()
        return self._recorded

    def _captured(self, graph: StepGraph, work: Callable[[], Work]) -> Work:
        try:
            for group in self.optimizer.param_groups:
                group["capturable"] = True  # only here, so that checkpoints are those of any other run
            return graph.capture(work)
        except RuntimeError as refusal:
            raise RuntimeError(
                f"a step could not be recorded as a CUDA graph: {refusal}; with parallel.cuda_graph = false, or "
                "parallel.compile_blocks = false, the same run trains without it"
            ) from refusal
        finally:
            for group in self.optimizer.param_groups:
                group["capturable"] = False

    def _set_lr(self, lr: float | torch.Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def _work(self, step: int | torch.Tensor, lr: float | torch.Tensor) -> Work:
        """The whole step on the device."""
        self._set_lr(lr)
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
        norm = gradient_norm(trained).to(self.device)
        self.clock.mark("communication")
        shared = self._shared(sums, norm)
        self.clock.mark("optimizer")
        torch.maximum(self._broken, (shared[-2] > 0).float(), out=self._broken)
        self._update(norm)
        return tuple(sums), shared, torch.stack(part_losses)

    def _update(self, norm: torch.Tensor) -> None:
        """The optimizer's step. It divides the gradients by the scale that clips their norm, in the same pass, and
        changes nothing if the run is broken."""
        optimizer: Any = self.optimizer
        optimizer.found_inf = self._broken
        if self.clip_norm:
            optimizer.grad_scale = ((norm + CLIP_EPS) / self.clip_norm).clamp(min=1.0).float()
        try:
            optimizer.step()
        finally:
            del optimizer.found_inf
            if self.clip_norm:
                del optimizer.grad_scale

    def _backward(self, step: int | torch.Tensor, part: int) -> dict[str, torch.Tensor]:
        self.clock.mark("data")
        batch = self.batch_at(step, part)
        self.clock.mark("forward")
        last = part == self.parts - 1
        with contextlib.nullcontext() if last else without_exchange(self.losses_of):
            with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext():
                losses = self.losses_of(batch)
            self.clock.mark("backward")
            (losses["loss"] / self.parts).backward()
        if last:
            self.clock.mark_reduced()
        return {name: value.detach() for name, value in losses.items()}

    def _shared(self, sums: dict[str, torch.Tensor], norm: torch.Tensor) -> torch.Tensor:
        """The numbers of `Begun`: one exchange of a few numbers."""
        values = torch.stack([*(value.double() for value in sums.values()), norm.double()])
        # A NaN would make the sum NaN in every process, so it is flagged before summing.
        bad = (~torch.isfinite(values)).any().double()
        return self.processes.sum(torch.cat([values, torch.stack([bad, self._asked])]))

    def report(self, begun: Begun, since: float) -> StepReport:
        """The numbers of a step; waits until the device has finished it. since: when its time began.

        Raises NonFiniteLoss."""
        *totals, norm, any_bad, any_asked = (
            value / self.processes.world_size for value in begun.numbers.wait()
        )
        if any_bad:
            self._refuse(begun.step, begun.part_losses.wait(), norm)
        means = {name: value / self.parts for name, value in zip(begun.names, totals, strict=True)}
        seconds = time.perf_counter() - since
        return StepReport(begun.step, means, begun.lr, norm, seconds, any_asked > 0)

    def _refuse(self, step: int, values: list[float], norm: float) -> None:
        """Raises NonFiniteLoss; values: the losses of the parts. One non-finite loss makes the gradients of all
        processes non-finite, so the processes first find out whose loss it was."""
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
