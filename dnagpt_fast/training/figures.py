"""The cost of a step: its rate, the share of each stage, the peak memory.

On CUDA the stages are timed by events on the stream, only every n-th step, and read one step later: nothing
here waits for the device. So a stage's time is the time of the device in it, including its waits for the
host; a data stage for which the device never waits takes no time.
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
# On CUDA a measured step costs a few dozen event records of a few microseconds each.
CUDA_EVERY_STEPS = 10


class StageClock:
    """Shares of the stages, separated by marks: `mark(stage)` ends the current stage and starts this one.

    every_steps  measures every n-th step; 0: every step on the CPU, every tenth on CUDA
    """

    def __init__(self, device: torch.device, every_steps: int = 0) -> None:
        self._cuda = device.type == "cuda"
        self._every_steps = every_steps or (CUDA_EVERY_STEPS if self._cuda else 1)
        self._running = False
        self._marks: list[tuple[str, Any]] = []  # marks of the current step
        self._past: list[tuple[str, Any]] = []  # marks of the last measured step, not read yet
        self._last_gradient: Any = None

    def begin(self, step: int) -> None:
        self._running = step % self._every_steps == 0
        self._marks = []
        self._last_gradient = None

    def mark(self, stage: str) -> None:
        if self._running:
            self._marks.append((stage, self._now()))

    def mark_reduced(self) -> None:
        """Called after the backward pass: the time since the last gradient was communication."""
        if self._running and self._last_gradient is not None:
            self._marks.append(("communication", self._last_gradient))
            self._last_gradient = None

    def end(self) -> None:
        if self._running:
            self._marks.append(("", self._now()))
            self._past, self._running = self._marks, False

    def shares(self) -> dict[str, float]:
        """share_data .. share_optimizer of the last measured step; they add up to 1. Each step's shares are
        given once, then {} until the next measured step. On CUDA also {} while the device has not finished
        that step."""
        if not self._past or (self._cuda and not self._past[-1][1].query()):
            return {}
        seconds = dict.fromkeys(STAGES, 0.0)
        for (stage, began), (_, ended) in zip(self._past, self._past[1:], strict=False):
            seconds[stage] += began.elapsed_time(ended) / 1000 if self._cuda else ended - began
        self._past = []
        whole = sum(seconds.values())
        return {f"share_{stage}": value / whole for stage, value in seconds.items()}

    def mark_before(self, module: nn.Module, stage: str) -> None:
        """Starts `stage` before each forward pass of `module`: for a stage that starts inside a model."""
        module.register_forward_pre_hook(lambda *_: self.mark(stage))

    def watch_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Records the time of each gradient, so that `mark_reduced` knows the last one; for replicas."""
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._gradient_made)

    def watch_shards(self, losses: nn.Module, blocks: Iterable[nn.Module]) -> None:
        """For sharded weights, after `parallel.distribute`: the time of its hooks around a block, forward and
        backward, is communication for which the computation waits; so is the time after the first block's
        gradient."""
        for module in (losses, *blocks):
            # One pair of hooks runs outside the hooks that gather and drop the weights, one pair inside.
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
            # a block gives two tensors, whose gradients come from the same kernel
            self._mark_at_gradient(output[0] if isinstance(output, tuple) else output, stage_of_gradient)

        return hook

    def _mark_at_gradient(self, value: Any, stage: str) -> None:
        """Starts `stage` when the backward pass reaches this tensor."""

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
    """The work of one step over all processes.

    tokens, bp  tokens and base pairs of the samples of a step
    flops       operations of the model for them, forward and backward; see flops.py
    peak_flops  peak operations per second of one process's device; the utilisation is a share of it
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
    """Peak memory of this process so far, GiB: allocated memory on a CUDA device, otherwise resident host
    memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
