"""A graph on the CPU: the operations of one call on tensors, recorded, and repeated on the same memory.

It is to a step what a CUDA graph is: what the host decides or reads during the call is fixed for all replays, and the
outputs are the same memory each time. A read of a value by the host raises, as it does during a capture.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

READS = (
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::nonzero",
    "aten::masked_select",
    "aten::is_nonzero",
)


class HostRead(RuntimeError):
    """The host read a value, or a copy crossed devices."""


class Watch(TorchDispatchMode):
    """Raises HostRead for a read of a value by the host and for an operation on two devices; keeps what was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name in READS:
            raise HostRead(f"{name} in a recorded step")
        made = func(*args, **kwargs)
        devices = {x.device.type for x in tree_leaves((args, kwargs, made)) if isinstance(x, torch.Tensor)}
        if len(devices) > 1:
            raise HostRead(f"{name} on {sorted(devices)} in a recorded step")
        self.calls.append((func, args, kwargs, made))
        return made


class RecordedGraph:
    """A StepGraph of dnagpt_fast.training.step_graph for tensors on the CPU."""

    def __init__(self) -> None:
        self.warmed = self.captured = self.replayed = 0
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def warm(self, work: Any) -> Any:
        self.warmed += 1
        return work()

    def capture(self, work: Any) -> Any:
        self.captured += 1
        changed: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        class Recorder(Watch):
            """A capture runs nothing: what is written in place gets its old value back."""

            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if func._schema.is_mutable:
                    for x in tree_leaves((args, kwargs)):
                        if isinstance(x, torch.Tensor):
                            changed.setdefault(id(x), (x, x.detach().clone()))
                return super().__torch_dispatch__(func, types, args, kwargs)

        with Recorder() as recorder:
            made = work()
        self._calls = recorder.calls
        with torch.no_grad():
            for x, old in reversed(changed.values()):
                x.copy_(old)
        return made

    @torch.no_grad()
    def replay(self) -> None:
        self.replayed += 1
        for func, args, kwargs, made in self._calls:
            again = func(*args, **kwargs)
            if func._schema.is_mutable or func.is_view:
                continue
            tree_map(lambda old, new: old.copy_(new) if isinstance(old, torch.Tensor) else None, made, again)
