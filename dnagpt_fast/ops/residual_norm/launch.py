"""Residual addition and LayerNorm on the GPU: the Triton kernels as torch ops with a backward.

Saved for the backward: s, which is kept anyway as the stream, and two floats per row. Every launch depends on shapes
alone, so the ops can be captured in a CUDA graph after one call outside it.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from dnagpt_fast.ops.registration import refuse_second_derivative, register_op
from dnagpt_fast.ops.residual_norm.kernels import (
    residual_norm_backward_kernel,
    residual_norm_forward_kernel,
    residual_norm_sum_kernel,
)
from dnagpt_fast.ops.triton_settings import LAUNCH, accumulator, family, triton_version

WIDEST = 8192
# Elements of a thread: each of the [BT, BD] values that a kernel keeps takes as many registers.
A_THREAD = {"forward": 32, "backward": 16}
# On Blackwell, and before Triton 3.8 on every card, the compiler spills with 16. That of 3.7 also spills with 8 in 16
# warps, so it gets half the rows.
A_THREAD_BACKWARD = {"blackwell": 8}
A_THREAD_BEFORE_3_8 = 8
# Programs of the backward pass: two on each SM of the smallest card that matters, for one sum of the weight's
# gradient each. The same on every card, so that the result does not depend on it.
PROGRAMS = 256
SUM_ROWS, SUM_WIDTH = 32, 32


class Tile(NamedTuple):
    """BT rows of BD columns, BD a power of two."""

    BT: int
    BD: int
    warps: int


def tile_for(which: str, s: Tensor) -> Tile:
    """Whole rows of s for a pass ("forward", "backward"): some 4,096 elements, half as many in float64; at most 32
    rows."""
    wide = accumulator(s).itemsize // 4
    a_thread, elements = A_THREAD[which], 4096
    if which == "backward":
        a_thread = A_THREAD_BACKWARD.get(family(s.device), a_thread)
        if triton_version() < (3, 8):
            a_thread = A_THREAD_BEFORE_3_8
        if (3, 7) <= triton_version() < (3, 8):
            elements = 2048
    BD = max(32, triton.next_power_of_2(s.shape[-1]))
    BT = max(1, min(32, elements // wide // BD))
    warps = min(16, max(1, BT * BD * wide // (32 * a_thread)))
    return Tile(BT, BD, warps)


def residual_norm_triton(
    stream: Tensor, branch: Tensor, weight: Tensor, bias: Tensor | None, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """As residual_norm_reference. Raises ValueError for rows that are wider than WIDEST."""
    if stream.shape[-1] > WIDEST:
        raise ValueError(
            f"residual_norm: the Triton kernels take rows of at most {WIDEST} elements, not {stream.shape[-1]}; "
            'use dispatch.using(residual_norm="reference")'
        )
    s, y, _, _ = FORWARD(stream, branch, weight, bias, eps, dtype)
    return s, y


def _constants(s: Tensor, tile: Tile) -> dict[str, object]:
    acc = accumulator(s)
    return {
        "D": s.shape[-1],
        "ACC": tl.float64 if acc == torch.float64 else tl.float32,
        "BT": tile.BT,
        "BD": tile.BD,
        "num_warps": tile.warps,
        **LAUNCH,
    }


def _forward(
    stream: Tensor, branch: Tensor, weight: Tensor, bias: Tensor | None, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    outputs = s, y, mean, rstd = _forward_fake(stream, branch, weight, bias, eps, dtype)
    rows = mean.numel()
    if s.numel():
        tile = tile_for("forward", s)
        grid = (triton.cdiv(rows, tile.BT),)
        with torch.cuda.device_of(s):
            residual_norm_forward_kernel[grid](
                stream.contiguous(), branch.contiguous(), weight.contiguous(),
                None if bias is None else bias.contiguous(), s, y, mean, rstd, rows, eps,
                HAS_BIAS=bias is not None, **_constants(s, tile),
            )  # fmt: skip
    return outputs


def _backward(
    ds: Tensor | None, dy: Tensor, s: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor,
    branch_dtype: torch.dtype, has_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    outputs = dx, db, dweight, dbias = _backward_fake(ds, dy, s, weight, mean, rstd, branch_dtype, has_bias)
    rows, width = mean.numel(), s.shape[-1]
    if not s.numel():
        dweight.zero_(), dbias.zero_()
        return outputs
    tile = tile_for("backward", s)
    programs = min(triton.cdiv(rows, tile.BT), PROGRAMS)
    part = mean.new_empty(1 + has_bias, programs, width)
    ds = None if ds is None else ds.contiguous()
    with torch.cuda.device_of(s):
        residual_norm_backward_kernel[(programs,)](
            ds, dy.contiguous(), s, weight.contiguous(), mean, rstd, dx, db, part[0], part[-1], rows,
            HAS_DS=ds is not None, HAS_DB=db.numel() > 0, HAS_BIAS=has_bias, **_constants(s, tile),
        )  # fmt: skip
        small = Tile(SUM_ROWS, SUM_WIDTH, 1)
        for sums, out in zip(part, (dweight, dbias), strict=False):
            residual_norm_sum_kernel[(triton.cdiv(width, SUM_WIDTH),)](
                sums, out, programs, **_constants(s, small)
            )
    return outputs


def _forward_fake(stream, branch, weight, bias, eps, dtype):
    s = torch.empty_like(stream, memory_format=torch.contiguous_format)
    rows = stream.shape[:-1]
    facts = [stream.new_empty(rows, dtype=accumulator(stream)) for _ in range(2)]
    return s, s.new_empty(s.shape, dtype=dtype), *facts


def _backward_fake(ds, dy, s, weight, mean, rstd, branch_dtype, has_bias):
    db = s.new_empty(s.shape if branch_dtype != s.dtype else 0, dtype=branch_dtype)
    return (
        torch.empty_like(s),
        db,
        torch.empty_like(weight),
        weight.new_empty(weight.shape if has_bias else 0),
    )


FORWARD = register_op(
    "residual_norm_forward(Tensor stream, Tensor branch, Tensor weight, Tensor? bias, float eps, ScalarType dtype)"
    " -> (Tensor s, Tensor y, Tensor mean, Tensor rstd)",
    _forward,
    fake=_forward_fake,
)
BACKWARD = register_op(
    "residual_norm_backward(Tensor? ds, Tensor dy, Tensor s, Tensor weight, Tensor mean, Tensor rstd,"
    " ScalarType branch_dtype, bool has_bias) -> (Tensor dx, Tensor db, Tensor dweight, Tensor dbias)",
    _backward,
    fake=_backward_fake,
)


def _save(ctx, inputs, output):
    _, branch, weight, bias, _, _ = inputs
    s, y, mean, rstd = output
    ctx.save_for_backward(s, weight, mean, rstd)
    ctx.branch_dtype, ctx.bias_dtype = branch.dtype, None if bias is None else bias.dtype
    ctx.dtype = y.dtype
    ctx.set_materialize_grads(False)


def _gradients(ctx, ds, dy, dmean, drstd):
    refuse_second_derivative("residual_norm")
    s, weight, mean, rstd = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(s, dtype=ctx.dtype)
    has_bias = ctx.bias_dtype is not None
    dx, db, dweight, dbias = BACKWARD(ds, dy, s, weight, mean, rstd, ctx.branch_dtype, has_bias)
    db = dx if ctx.branch_dtype == s.dtype else db
    return dx, db, dweight, dbias.to(ctx.bias_dtype) if has_bias else None, None, None


torch.library.register_autograd(FORWARD.default, _gradients, setup_context=_save)
