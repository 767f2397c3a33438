"""y = x W^T + b: `linear` for inference on rows, `dense` with its gradient and optionally GELU of the input first.

On the CPU in float32 both use oneDNN, which torch contains but uses for bfloat16 only.

- Inference: a few rows times a large matrix run two to three times as fast as with MKL (benchmarks/LOG.md), and a row's
  result does not depend on the other rows if their number is a multiple of ROWS_MULTIPLE (tests/ops/test_linear.py).
  oneDNN before 3.12 (torch 2.11 has 3.10) keeps this only in small products on processors without AVX-512: there the
  rows are taken in blocks.
- Training: the two products that read the weight (y, and dx = dy W) are faster than with MKL; dW = dy^T a is left to
  MKL, which is as fast. gelu(x) is not kept for the backward pass but computed again from x: this saves a quarter of a
  block's activations and costs less than 1 % of a step's time.
"""

import math
from functools import cache

import torch
import torch.nn.functional as F

from dnagpt_fast.ops import dispatch

ROWS_MULTIPLE = 16
"""If the number of rows is a multiple of this, the bits of a row do not depend on that number."""
SLOPE, CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715
"""Of twice the argument of the tanh in GELU."""
BLOCKS = (96, 48, 16)
"""Rows of one product where oneDNN's larger products depend on the number of rows. Its kernel for AVX2 takes six rows
at a time; a rest of four has the same sums as six, a rest of two has not."""


def pack_weight(weight: torch.Tensor) -> torch.Tensor | None:
    """A copy of a float32 CPU weight in oneDNN's blocked layout, for `linear`; None if oneDNN is not used for it."""
    if (
        weight.dtype != torch.float32
        or weight.device.type != "cpu"
        or dispatch.choose("linear", "cpu") != "onednn"
    ):
        return None
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS_MULTIPLE)


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    packed: torch.Tensor | None = None,
) -> torch.Tensor:
    """(R, D_in) rows -> (R, D_out); no gradient.

    weight, bias  (D_out, D_in), (D_out,): as in torch.nn.functional.linear
    packed        pack_weight(weight): the same values in a faster layout. `weight` is still needed for shape and device
    Raises ValueError for shapes, dtypes or devices that do not fit.
    """
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"linear: x {tuple(x.shape)}, weight {tuple(weight.shape)}: wanted (R, D_in) and (D_out, D_in)"
        )
    if x.dtype != weight.dtype or x.device != weight.device:
        raise ValueError(f"linear: x is {x.dtype} on {x.device}, weight {weight.dtype} on {weight.device}")
    if x.dtype == torch.float32 and dispatch.choose("linear", x.device.type) == "onednn":
        if x.device.type != "cpu":
            raise ValueError(
                f"linear: oneDNN runs on the CPU, x is on {x.device}; use the implementation 'torch'"
            )
        with torch.no_grad():
            used = weight.contiguous() if packed is None else packed
            if rows_are_independent() or len(x) % ROWS_MULTIPLE:
                return _product(x.contiguous(), used, bias)
            return _by_blocks(x.contiguous(), used, bias)
    with torch.no_grad():
        return F.linear(x, weight, bias)


@cache
def rows_are_independent() -> bool:
    """Whether oneDNN's float32 products have this property here: tried once, with two products of some milliseconds."""
    generator = torch.Generator().manual_seed(0)
    for inputs, outputs in (
        (48, 20),
        (768, 128),
    ):  # few and many steps of the sum, as in tests/ops/test_linear.py
        x = torch.randn(1024, inputs, generator=generator)
        weight = torch.randn(outputs, inputs, generator=generator)
        if not torch.equal(_product(x, weight, None), _by_blocks(x, weight, None)):
            return False
    return True


def _by_blocks(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The product of a multiple of ROWS_MULTIPLE rows, a block at a time."""
    parts, first = [], 0
    while first < len(x):
        rows = next(rows for rows in BLOCKS if rows <= len(x) - first)
        parts.append(_product(x[first : first + rows], weight, bias))
        first += rows
    return torch.cat(parts) if parts else _product(x, weight, bias)


def gelu(x: torch.Tensor) -> torch.Tensor:
    """The tanh approximation of GELU (Hendrycks and Gimpel, arXiv 1606.08415) of any shape; no gradient.

    x/2 (1 + tanh u) = x / (1 + exp(-2u)), with u = sqrt(2/pi) (x + 0.044715 x^3). On the CPU this is the logistic
    function in float32, because torch's tanh takes three times as long (benchmarks/LOG.md); elsewhere it is F.gelu.
    """
    with torch.no_grad():
        if x.device.type != "cpu" or x.dtype != torch.float32:
            return F.gelu(x, approximate="tanh")
        twice_u = (x * x).mul_(CUBIC * SLOPE).add_(SLOPE).mul_(x)
        return twice_u.sigmoid_().mul_(x)


def dense(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, gelu: bool = False
) -> torch.Tensor:
    """y = a W^T + b, where a is x or gelu(x): (..., D_in) -> (..., D_out), differentiable once.

    weight, bias  (D_out, D_in), (D_out,): as in torch.nn.functional.linear
    gelu          apply the tanh approximation of GELU (Hendrycks and Gimpel 2016) to x first

    This is F.linear (of F.gelu) on other devices, in dtypes other than float32, under autocast, in torch.compile and
    when no gradient is needed.
    """
    by_torch = (
        x.device.type != "cpu"
        or x.dtype != torch.float32
        or weight.dtype != torch.float32
        or torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
        or not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        or dispatch.choose("linear", "cpu") != "onednn"
    )
    if by_torch:
        return F.linear(F.gelu(x, approximate="tanh") if gelu else x, weight, bias)
    return _Dense.apply(x, weight, bias, gelu)


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, gelu):
        ctx.save_for_backward(x, weight)
        ctx.gelu = gelu
        rows = x.reshape(-1, x.shape[-1])
        y = _product(F.gelu(rows, approximate="tanh") if gelu else rows, weight, bias)
        return y.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        rows, dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, weight.shape[0])
        dx = d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = dy.t().mm(F.gelu(rows, approximate="tanh") if ctx.gelu else rows)
        if ctx.needs_input_grad[0]:
            dx = _product(dy, weight.t(), None)
            if ctx.gelu:
                dx = torch.ops.aten.gelu_backward(dx, rows, approximate="tanh")
            dx = dx.view(x.shape)
        return dx, d_weight, dy.sum(0) if ctx.needs_input_grad[2] else None, None


def _product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """rows W^T + b with oneDNN, which accepts any strides of the matrices but ignores those of the bias."""
    bias = None if bias is None else bias.contiguous()
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
