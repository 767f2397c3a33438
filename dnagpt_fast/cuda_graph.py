"""The work of one call on a GPU as a CUDA graph: one launch repeats all of its kernels on the same memory."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Made = TypeVar("Made")


class CudaGraph:
    """The graph of one call, on a device (None: the current one).

    All calls before the capture run on the graph's own stream, as torch asks for: what they leave behind in autograd
    then belongs to the stream of the capture.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._stream = torch.cuda.Stream(device)
        self._graph: Any = None

    def warm(self, work: Callable[[], Made]) -> Made:
        """A call before the capture, which runs: Triton compiles and loads a kernel at its first call, and libraries
        allocate; a capture forbids both."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            made = work()
        current.wait_stream(self._stream)
        return made

    def capture(self, work: Callable[[], Made]) -> Made:
        """Records a call, which does not run. Its outputs are those of every replay. Raises RuntimeError if it cannot
        be captured."""
        self._graph = None  # its memory is free for the new one
        self._graph = torch.cuda.CUDAGraph()
        # "thread_local": other threads, such as the writer of a checkpoint, may go on calling CUDA. In the default mode
        # their allocations and copies would raise, and end the capture too.
        graph = torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local")
        with torch.cuda.device(self._stream.device), graph:
            return work()

    def replay(self) -> None:
        """Does what was recorded, on the current stream."""
        self._graph.replay()
