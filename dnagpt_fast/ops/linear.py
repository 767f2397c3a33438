"""y = x W^T + b for inference on rows: the matrix product of generation, embedding and scoring.

On the CPU it goes to oneDNN, which torch carries and uses by itself for bfloat16 only. Two reasons: a few rows against
a large matrix run two to three times as fast as through MKL (benchmarks/LOG.md), and a row's result does not depend on
the rows beside it, as long as there are at least ROWS_MULTIPLE of them (tests/ops/test_linear.py).
"""

import torch
import torch.nn.functional as F

from dnagpt_fast.ops import dispatch

ROWS_MULTIPLE = 16
"""Row counts that are multiples of this give every row the same bits, whatever their number."""


def pack_weight(weight: torch.Tensor) -> torch.Tensor | None:
    """A copy of a float32 CPU weight in oneDNN's blocked layout, for `linear`; None where that is not in use."""
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
    packed        pack_weight(weight): the same numbers read faster. `weight` still says the shape and the device
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
            return torch.ops.mkldnn._linear_pointwise(x.contiguous(), used, bias, "none", [], "")
    with torch.no_grad():
        return F.linear(x, weight, bias)
