"""What a step cost: its rate, the share of each stage, the memory it took at most.

On CUDA the stages are timed by events on the stream, read one step later when they are past, and only every n-th step:
nothing here waits for the device. So what a stage is charged with is the time the device spent in it, waiting for the
host included; a data stage that the device never waits for costs nothing.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

STAGES = ("data", "forward", "loss", "backward", "communication", "optimizer")
GIB = 2**30
# On CUDA a measured step costs some dozens of event records, a few microseconds each.
CUDA_EVERY_STEPS = 10


class StageClock:
    """Shares of the stages, separated by marks: `mark(stage)` ends the stage before and begins this one.

    every_steps  how often a step is measured; every step on CPU, every tenth on CUDA by default
    """

    def __init__(self, device: torch.device, every_steps: int = 0) -> None:
        self._cuda = device.type == "cuda"
        self._every_steps = every_steps or (CUDA_EVERY_STEPS if self._cuda else 1)
        self._running = False
        self._marks: list[tuple[str, Any]] = []  # of the step in hand
        self._past: list[tuple[str, Any]] = []  # of the last measured step, not yet read
        self._last_gradient: Any = None

    def begin(self, step: int) -> None:
        self._running = step % self._every_steps == 0
        self._marks = []
        self._last_gradient = None

    def mark(self, stage: str) -> None:
        if self._running:
            self._marks.append((stage, self._now()))

    def mark_reduced(self) -> None:
        """Called when the backward pass is over: what came after the last gradient was made was communication."""
        if self._running and self._last_gradient is not None:
            self._marks.append(("communication", self._last_gradient))
            self._last_gradient = None

    def end(self) -> None:
        if self._running:
            self._marks.append(("", self._now()))
            self._past, self._running = self._marks, False

    def shares(self) -> dict[str, float]:
        """share_data .. share_optimizer of the last measured step, which add up to 1; once, then {} until the next one.

        On CUDA {} too while that step is not over.
        """
        if not self._past or (self._cuda and not self._past[-1][1].query()):
            return {}
        seconds = dict.fromkeys(STAGES, 0.0)
        for (stage, began), (_, ended) in zip(self._past, self._past[1:], strict=False):
            seconds[stage] += began.elapsed_time(ended) / 1000 if self._cuda else ended - began
        self._past = []
        whole = sum(seconds.values())
        return {f"share_{stage}": value / whole for stage, value in seconds.items()}

    def mark_after(self, module: nn.Module, stage: str) -> None:
        """`stage` begins whenever `module` has run forward: for a stage that begins inside a model."""
        module.register_forward_hook(lambda *_: self.mark(stage))

    def watch_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Notes when each gradient is made, so that `mark_reduced` knows the last; for replicas."""
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._gradient_made)

    def watch_shards(self, losses: nn.Module, blocks: Iterable[nn.Module]) -> None:
        """For weights in shards, after `parallel.distribute`: what its hooks do around a block, forward and backward,
        is communication that the computation waits for, and so is what follows the first block's gradient."""
        for module in (losses, *blocks):
            # Outside the hooks that gather and drop the weights, and inside of them.
            module.register_forward_pre_hook(self._at_input("communication", "backward"), prepend=True)
            module.register_forward_pre_hook(self._at_input("forward", "communication"))
            module.register_forward_hook(self._at_output("communication"), prepend=True)
            module.register_forward_hook(self._at_output("backward"))

    def _at_input(self, stage: str, stage_of_gradient: str) -> Callable[[nn.Module, Any], None]:
        def hook(_: nn.Module, args: Any) -> None:
            self.mark(stage)
            self._mark_at_gradient(args[0], stage_of_gradient)

        return hook

    def _at_output(self, stage_of_gradient: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            self._mark_at_gradient(output, stage_of_gradient)

        return hook

    def _mark_at_gradient(self, value: Any, stage: str) -> None:
        """`stage` begins when the backward pass has come to this tensor."""

        def hook(gradient: torch.Tensor) -> None:
            self.mark(stage)
            self._gradient_made(gradient)

        if self._running and isinstance(value, torch.Tensor) and value.requires_grad:
            value.register_hook(hook)

    def _gradient_made(self, _: torch.Tensor) -> None:
        if self._running:
            self._last_gradient = self._now()

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


@dataclass(frozen=True)
class StepCost:
    """What one step of all processes amounts to.

    tokens, bp  of the samples of a step
    flops       operations the model needs for them, forward and backward; see flops.py
    peak_flops  operations a second of one process's device at its best, what the utilisation is a share of
    """

    tokens: int
    bp: int
    flops: int
    peak_flops: float
    processes: int = 1

    def rates(self, seconds: float) -> dict[str, float]:
        """tokens_per_s and bp_per_s over all processes, and mfu: the model FLOP utilisation, 0..1."""
        return {
            "tokens_per_s": self.tokens / seconds,
            "bp_per_s": self.bp / seconds,
            "mfu": self.flops / seconds / (self.peak_flops * self.processes),
        }


def peak_memory_gib(device: torch.device) -> float:
    """The most memory this process has held so far, GiB: allocated on a CUDA device, else resident in the host's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
