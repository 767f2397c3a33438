"""mlp: two linear layers with GELU between them, differentiable once."""

import torch

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.linear import dense
from dnagpt_fast.ops.mlp.reference import mlp_reference
from dnagpt_fast.ops.mlp.rule import implementation_for
from dnagpt_fast.ops.triton_settings import check_may_run

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def mlp(
    x: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    *,
    up_bias: torch.Tensor | None = None,
    down_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """gelu(x up^T + up_bias) down^T + down_bias, with the tanh approximation of GELU: (..., D) -> (..., D_out).

    up, up_bias      (F, D), (F,)
    down, down_bias  (D_out, F), (D_out,)

    All in one floating dtype; under autocast in any, and the result has autocast's. The implementations: "dense" (GELU
    between two products, ops.linear.dense), "triton" (GELU inside the kernels of two of the products, on a GPU),
    "reference". On CUDA rule.py chooses, by card and width. Raises ValueError for shapes, dtypes or devices that do not
    fit.

    >>> y = mlp(torch.ones(2, 3), torch.eye(3), torch.ones(1, 3))
    >>> [round(value, 4) for value in y.flatten().tolist()]
    [2.5236, 2.5236]
    """
    _check(x, up, down, up_bias, down_bias)
    chosen = dispatch.choose("mlp", x.device.type)
    if chosen == "rule":
        tensors = (x, up, down, up_bias, down_bias)
        trained = torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in tensors)
        chosen = implementation_for(x, _dtype_of_products(x), trained=trained)
    if chosen == "reference":
        return mlp_reference(x, up, up_bias, down, down_bias)
    if chosen == "dense":
        return dense(dense(x, up, up_bias), down, down_bias, gelu=True)
    # imported only here: Triton exists for Linux only
    from dnagpt_fast.ops.mlp.launch import mlp_triton

    check_may_run("mlp", x, "dense")
    dtype = _dtype_of_products(x)
    up_bias, down_bias = (None if one is None else one.to(dtype) for one in (up_bias, down_bias))
    return mlp_triton(x.to(dtype), up.to(dtype), up_bias, down.to(dtype), down_bias)


def _dtype_of_products(x: torch.Tensor) -> torch.dtype:
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


def _check(
    x: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    up_bias: torch.Tensor | None,
    down_bias: torch.Tensor | None,
) -> None:
    # sizes, not shapes, and each property of x once: all of it is paid by every block of a small model
    if (
        up.dim() != 2
        or down.dim() != 2
        or x.dim() < 1
        or x.size(-1) != up.size(1)
        or up.size(0) != down.size(1)
    ):
        raise ValueError(
            f"mlp: x {tuple(x.shape)}, up {tuple(up.shape)}, down {tuple(down.shape)}: wanted (..., D), (F, D) and "
            "(D_out, F)"
        )
    device, dtype = x.device, x.dtype
    for name, tensor, width in (
        ("x", x, None),
        ("up", up, None),
        ("down", down, None),
        ("up_bias", up_bias, up.size(0)),
        ("down_bias", down_bias, down.size(0)),
    ):
        if tensor is None:
            continue
        if width is not None and (tensor.dim() != 1 or tensor.size(0) != width):
            raise ValueError(f"mlp: {name} is {tuple(tensor.shape)}: wanted {(width,)}")
        if tensor.device != device:
            raise ValueError(f"mlp: {name} is on {tensor.device}, x on {device}")
        own = tensor.dtype
        if own not in DTYPES or (own != dtype and not torch.is_autocast_enabled(device.type)):
            raise ValueError(
                f"mlp: {name} is {own}, x is {dtype}: wanted one of {', '.join(map(str, DTYPES))}, the same "
                "for all except under autocast"
            )
