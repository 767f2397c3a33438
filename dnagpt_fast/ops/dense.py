"""y = a W^T + b with its gradient, where a is x or gelu(x): the matrix products of a training step.

On the CPU, in float32, the two products that read the weight (y, and dx = dy W) go to oneDNN, faster there than
the MKL that torch would take; dW = dy^T a stays with MKL, which is as fast (benchmarks/LOG.md). gelu(x) is not kept for
the backward pass but made again from x: a quarter of a block's activations less, for under 1 % of a step's time.
"""

import torch
import torch.nn.functional as F

from dnagpt_fast.ops import dispatch


def dense(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, gelu: bool = False
) -> torch.Tensor:
    """(..., D_in) -> (..., D_out), differentiable once.

    weight, bias  (D_out, D_in), (D_out,): as in torch.nn.functional.linear
    gelu          apply the tanh approximation of GELU (Hendrycks and Gimpel 2016) to x first

    Elsewhere than on the CPU in float32, under autocast, in torch.compile and without a gradient wanted, it is
    F.linear (of F.gelu).
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
    """rows W^T + b by oneDNN, which takes any strides."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
