"""Builds models without memory and initial values, for weights that come from a file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _NoInitialValues(TorchFunctionMode):
    """Leaves out the functions of torch.nn.init. On tensors without memory they compute nothing, and torch would import
    its compiler, Triton and SymPy for their random numbers: seconds at the start of a command."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules that are built in the block have parameters on the meta device: names, shapes and dtypes, no values.

    >>> from torch import nn
    >>> with shapes_only():
    ...     layer = nn.Linear(1_000_000, 1_000_000)
    >>> layer.weight.shape, layer.weight.is_meta
    (torch.Size([1000000, 1000000]), True)
    """
    with torch.device("meta"), _NoInitialValues():
        yield
