"""The memory that ops write to: the caller's `out`, or new memory, in huge pages if it is large."""

from typing import Any

import torch

from dnagpt_fast.ops.compiled import native_module

LARGE_BYTES = 4 << 20
"""From this size on, new memory is requested in huge pages, as numpy does: one page fault per 2 MiB, not per 4 KiB.
The page faults would otherwise take most of the time of a call."""


def new_output(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """An uninitialised tensor."""
    made = torch.empty(shape, dtype=dtype, device=device)
    if made.nbytes >= LARGE_BYTES and made.is_cpu:
        native_module.use_huge_pages(made.data_ptr(), made.nbytes)
    return made


def output(
    out: Any, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, name: str = "out"
) -> torch.Tensor:
    """`out` after checks, or a new tensor if it is None.

    Raises ValueError for a wrong shape, dtype or device, and for a tensor that is not contiguous.
    """
    if out is None:
        return new_output(shape, dtype, device)
    if not isinstance(out, torch.Tensor):
        raise ValueError(f"{name} is {type(out).__name__}: wanted a tensor")
    if out.shape != shape or out.dtype != dtype or out.device != device or not out.is_contiguous():
        contiguous = "contiguous" if out.is_contiguous() else "not contiguous"
        raise ValueError(
            f"{name} is {out.dtype} {tuple(out.shape)} on {out.device}, {contiguous}: "
            f"wanted {dtype} {tuple(shape)} on {device}, contiguous"
        )
    return out


def two_outputs(
    out: Any, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for ops that return a pair; `out` is a pair, too. Raises ValueError as `output` does."""
    if out is None:
        out = (None, None)
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise ValueError(f"out is {type(out).__name__}: wanted a pair of tensors")
    first, second = (output(each, shape, dtype, device, f"out[{i}]") for i, each in enumerate(out))
    return first, second
