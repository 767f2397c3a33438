"""The loss kernels that benchmarks.compile_audit compiles: forward and backward in each dtype and with each setting."""

from collections.abc import Callable, Iterator
from unittest import mock

import torch

from dnagpt_fast.ops import triton_settings
from dnagpt_fast.ops.combined_loss import launch, products
from dnagpt_fast.ops.combined_loss.settings import RowSettings

# Three row tiles, one chunk each: dW's running sum is written by the first, added to by the second, read by
# the last. The vocabulary of pre-training, and the 4,129 tokens that occur in it plus one row for all others.
ROWS, VOCAB, OCCURRING, WIDTH = 384, 19_564, 4130, 768
PLAIN = RowSettings()


def cases(architecture: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Pre-training in each dtype with fp32 gradients; then, in bf16, each setting that changes a kernel."""
    half = torch.bfloat16
    for dtype in (half, torch.float16, torch.float32):
        yield f"{str(dtype).removeprefix('torch.')} pretrain", _call(architecture, dtype, PLAIN)
    yield "bfloat16 skip", _call(architecture, half, RowSettings(skip_below=2**-24), gradients=half)
    settings = RowSettings(label_smoothing=0.1, z_loss=1e-4, soft_cap=30.0)
    yield "bfloat16 all-settings bias", _call(architecture, half, settings, bias=True, gradients=half)
    # without gradients: the passes over dz are the same as in the first case
    occurring = RowSettings(rest=VOCAB - OCCURRING + 1)
    yield "bfloat16 occurring", _call(architecture, half, occurring, gradients=None)
    base_level = occurring._replace(base_level=0.5, k=6)
    yield "bfloat16 occurring base-level", _call(architecture, half, base_level, gradients=None)
    for dtype in (half, torch.float32):
        yield f"{str(dtype).removeprefix('torch.')} products", _products(architecture, dtype, PLAIN)
    yield "bfloat16 products occurring", _products(architecture, half, occurring)
    rest = settings._replace(rest=VOCAB - OCCURRING + 1)
    yield "bfloat16 products all-settings occurring", _products(architecture, half, rest)
    yield "float32 occurring base-level", _call(architecture, torch.float32, base_level, gradients=None)


def _call(
    architecture: str,
    dtype: torch.dtype,
    settings: RowSettings,
    bias: bool = False,
    gradients: torch.dtype | None = torch.float32,
) -> Callable[[], object]:
    """gradients: the dtype of d_hidden and d_weight; None: only the workspace is filled."""
    vocab = OCCURRING if settings.rest else VOCAB

    def call() -> None:
        hidden, weight = torch.empty(ROWS, WIDTH, dtype=dtype), torch.empty(vocab, WIDTH, dtype=dtype)
        b = torch.empty(vocab, dtype=dtype) if bias else None
        targets, kind = torch.empty(ROWS, dtype=torch.int64), torch.empty(ROWS, dtype=torch.uint8)
        gc, mask = torch.empty(64), torch.empty(64, dtype=torch.bool)
        want = gradients is not None
        with (
            mock.patch.object(triton_settings, "architecture", return_value=architecture),
            mock.patch.object(triton_settings, "check_may_run"),
            mock.patch.object(launch, "MEMORY_BYTES", 1),
        ):
            ops = torch.ops.dnagpt_fast
            made = ops.combined_loss_forward(
                hidden, weight, b, targets, kind, gc, gc, mask, 1.0, 0.01, True, True, *settings,
            )  # fmt: skip
            *_, lse, base_pull, scales, _, keep = made
            ops.combined_loss_backward(
                torch.empty(()), hidden, weight, b, targets, kind, lse, base_pull, scales, keep,
                want, want, bias, gradients or dtype, gradients or dtype, *settings,
            )  # fmt: skip

    return call


def _products(architecture: str, dtype: torch.dtype, settings: RowSettings) -> Callable[[], object]:
    """Two chunks with the gradient in the forward pass; torch's products are left out."""
    vocab = OCCURRING if settings.rest else VOCAB

    def call() -> None:
        hidden, weight = torch.empty(ROWS, WIDTH, dtype=dtype), torch.empty(vocab, WIDTH, dtype=dtype)
        targets, kind = torch.empty(ROWS, dtype=torch.int64), torch.empty(ROWS, dtype=torch.uint8)
        gc, mask = torch.empty(64), torch.empty(64, dtype=torch.bool)
        with (
            mock.patch.object(triton_settings, "architecture", return_value=architecture),
            mock.patch.object(triton_settings, "check_may_run"),
            mock.patch.object(products, "product"),
            mock.patch.object(products, "rows_a_chunk", return_value=256),
        ):
            torch.ops.dnagpt_fast.combined_loss_products(
                hidden, weight, None, targets, kind, gc, gc, mask, 1.0, 0.01, True, True, True, True, False,
                torch.float32, torch.float32, *settings,
            )  # fmt: skip

    return call
