"""A training step as a CUDA graph: one launch instead of some hundred."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch

Made = TypeVar("Made")
# Steps before the capture: the first compiles and loads kernels and makes the optimizer's state, which a capture
# forbids.
WARM_STEPS = 2


class StepGraph(Protocol):
    """Records what one call of a function does on the device, and does it again on the same memory.

    The function may read only device memory that others write between the replays, and no value of it on the host.
    """

    def warm(self, work: Callable[[], Made]) -> Made:
        """A call before the capture, which runs."""
        ...

    def capture(self, work: Callable[[], Made]) -> Made:
        """Records a call, which need not run. Its outputs are those of every replay."""
        ...

    def replay(self) -> None:
        """Does what was recorded."""
        ...


class CudaGraph:
    """The graph of CUDA. All calls before the capture run on its own stream, as torch asks for: what they leave behind
    in autograd then belongs to the stream of the capture."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()
        self._graph: Any = None

    def warm(self, work: Callable[[], Made]) -> Made:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            made = work()
        torch.cuda.current_stream().wait_stream(self._stream)
        return made

    def capture(self, work: Callable[[], Made]) -> Made:
        self._graph = None  # its memory is free for the new one
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self._stream):
            return work()

    def replay(self) -> None:
        self._graph.replay()
