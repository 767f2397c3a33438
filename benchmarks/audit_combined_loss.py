"""The loss kernels that benchmarks.compile_audit compiles: forward and backward in each dtype and with each setting."""

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from dnagpt_fast.ops.combined_loss import launch as combined_loss_triton

ROWS, VOCAB, WIDTH = 256, 1024, 768
PLAIN: dict[str, Any] = {"label_smoothing": 0.0, "z_loss": 0.0, "soft_cap": None}


def cases(architecture: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Pre-training as it is run in each dtype; then the tile skip, and all settings at once, in bf16."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        yield f"{str(dtype).removeprefix('torch.')} pretrain", _call(architecture, dtype, PLAIN, None)
    yield "bfloat16 skip", _call(architecture, torch.bfloat16, PLAIN, 2**-24)
    settings = {"label_smoothing": 0.1, "z_loss": 1e-4, "soft_cap": 30.0}
    yield "bfloat16 all-settings bias", _call(architecture, torch.bfloat16, settings, None, bias=True)


def _call(
    architecture: str,
    dtype: torch.dtype,
    settings: dict[str, Any],
    skip_below: float | None,
    bias: bool = False,
) -> Callable[[], object]:
    def call() -> None:
        hidden, weight = torch.empty(ROWS, WIDTH, dtype=dtype), torch.empty(VOCAB, WIDTH, dtype=dtype)
        b = torch.empty(VOCAB, dtype=dtype) if bias else None
        targets, kind = torch.empty(ROWS, dtype=torch.int64), torch.empty(ROWS, dtype=torch.uint8)
        gc, mask = torch.empty(64), torch.empty(64, dtype=torch.bool)
        with (
            mock.patch.object(combined_loss_triton, "architecture", return_value=architecture),
            mock.patch.object(combined_loss_triton, "_check_device"),
            # two chunks: the running sum is then written by one and read by the other
            mock.patch.object(combined_loss_triton, "WORKSPACE_BYTES", 128 * VOCAB * dtype.itemsize),
        ):
            ops = torch.ops.dnagpt_fast
            made = ops.combined_loss_forward(
                hidden, weight, b, targets, kind, gc, gc, mask, 1.0, 0.01, -100, True,
                *settings.values(), skip_below, True,
            )  # fmt: skip
            *_, lse, scales, _, keep = made
            ops.combined_loss_backward(
                torch.empty(()), hidden, weight, b, targets, kind, lse, scales, keep, -100,
                *settings.values(), True, True, bias, dtype, dtype,
            )  # fmt: skip

    return call
