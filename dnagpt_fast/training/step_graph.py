"""A training step that is recorded once and repeated: what the loop asks of a graph, such as cuda_graph.CudaGraph."""

from collections.abc import Callable
from typing import Protocol, TypeVar

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
