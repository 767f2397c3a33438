"""The MLP on the GPU: the products with GELU by the Triton kernels, the other three by torch.

Saved for the backward pass: the rows, z and gelu(z). Every launch depends on shapes alone, so it can be captured in a
CUDA graph after one call outside it.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from dnagpt_fast.ops.mlp.kernels import mlp_dwide_kernel, mlp_up_kernel
from dnagpt_fast.ops.registration import refuse_second_derivative, register_op
from dnagpt_fast.ops.triton_settings import LAUNCH, family, product_constants

# Rows of a tile; half as many columns, with which two programs fit on an SM, so that one stores while the other
# multiplies (with 128 columns one spills, benchmarks/LOG.md). fp32 needs more registers: half of both.
ROWS = 128
STEP = 128  # bytes of a row that a product reads at a time
STAGES = {"cdna3": 2}  # of the pipelined loads; 3 elsewhere: 16 + 8 KiB each


def launch_constants(x: Tensor) -> dict[str, Any]:
    """Compile-time arguments and launch options of either kernel over rows x (R, D)."""
    rows, step = ROWS if x.element_size() == 2 else ROWS // 2, STEP // x.element_size()
    return {
        "BT": rows, "BF": rows // 2, "BD": step, "EVEN_D": x.shape[1] % step == 0, "num_warps": 8,
        "num_stages": STAGES.get(family(x.device), 3), **product_constants(x), **LAUNCH,
    }  # fmt: skip


def _grid(rows: int, wide: int, constants: dict[str, Any]) -> tuple[int]:
    return (triton.cdiv(rows, constants["BT"]) * triton.cdiv(wide, constants["BF"]),)


def _up(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    wide, gelu = _up_fake(x, weight, bias)
    if wide.numel():
        (rows, D), F = x.shape, len(weight)
        constants = launch_constants(x)
        with torch.cuda.device_of(x):
            mlp_up_kernel[_grid(rows, F, constants)](
                x.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous(), wide, gelu,
                rows, D, F, HAS_BIAS=bias is not None, **constants,
            )  # fmt: skip
    return wide, gelu


def _dwide(dy: Tensor, weight: Tensor, wide: Tensor) -> Tensor:
    dwide = _dwide_fake(dy, weight, wide)
    if wide.numel():
        (rows, D), F = dy.shape, wide.shape[1]
        constants = launch_constants(dy)
        with torch.cuda.device_of(dy):
            mlp_dwide_kernel[_grid(rows, F, constants)](
                dy.contiguous(), weight.contiguous(), wide.contiguous(), dwide, rows, D, F, **constants
            )
    return dwide


def _up_fake(x, weight, bias):
    return x.new_empty(len(x), len(weight)), x.new_empty(len(x), len(weight))


def _dwide_fake(dy, weight, wide):
    return wide.new_empty(wide.shape)


UP = register_op(
    "mlp_up(Tensor x, Tensor weight, Tensor? bias) -> (Tensor wide, Tensor gelu)", _up, fake=_up_fake
)
DWIDE = register_op(
    "mlp_dwide(Tensor dy, Tensor weight, Tensor wide) -> Tensor dwide", _dwide, fake=_dwide_fake
)


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, up, up_bias, down, down_bias):
        rows = x.reshape(-1, x.shape[-1])
        wide, gelu = UP(rows, up, up_bias)
        y = gelu.mm(down.t()) if down_bias is None else torch.addmm(down_bias, gelu, down.t())
        ctx.save_for_backward(rows, up, down, wide, gelu)
        return y.view(*x.shape[:-1], down.shape[0])

    @staticmethod
    def backward(ctx, dy):
        refuse_second_derivative("mlp")
        rows, up, down, wide, gelu = ctx.saved_tensors
        shape = dy.shape[:-1]
        dy = dy.reshape(-1, dy.shape[-1])
        wants_x, wants_up, wants_up_bias, wants_down, wants_down_bias = ctx.needs_input_grad
        dx = d_up = d_up_bias = None
        d_down = dy.t().mm(gelu) if wants_down else None
        d_down_bias = dy.sum(0) if wants_down_bias else None
        if wants_x or wants_up or wants_up_bias:
            dwide = DWIDE(dy, down, wide)
            dx = dwide.mm(up).view(*shape, up.shape[1]) if wants_x else None
            d_up = dwide.t().mm(rows) if wants_up else None
            d_up_bias = dwide.sum(0) if wants_up_bias else None
        return dx, d_up, d_up_bias, d_down, d_down_bias


def mlp_triton(
    x: Tensor, up: Tensor, up_bias: Tensor | None, down: Tensor, down_bias: Tensor | None
) -> Tensor:
    """As mlp_reference, for tensors of one dtype. Differentiable once."""
    y: Tensor = _Mlp.apply(x, up, up_bias, down, down_bias)
    return y
