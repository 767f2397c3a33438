"""y = x W^T + b with x and W rounded to bfloat16, sums in float32, and the product rounded to bfloat16 once.

oneDNN may choose another order of a row's sum for another number of rows. So every call of it has ROWS rows, and a
row's bits do not depend on how many rows there are.
"""

import torch
import torch.nn.functional as F

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.linear import ROWS_MULTIPLE

ROWS = ROWS_MULTIPLE
"""Rows of one product; the rows of inference are a multiple of it."""


def linear_bfloat16(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """float32 rows (R, D_in) -> float32 (R, D_out); no gradient.

    weight  bfloat16 (D_out, D_in)
    bias    float32 (D_out,), added in float32
    Raises ValueError for shapes, dtypes or devices that do not fit.
    """
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"linear_bfloat16: x {tuple(x.shape)}, weight {tuple(weight.shape)}: wanted (R, D_in) and (D_out, D_in)"
        )
    if (x.dtype, weight.dtype) != (torch.float32, torch.bfloat16) or x.device != weight.device:
        raise ValueError(
            f"linear_bfloat16: x is {x.dtype} on {x.device}, weight {weight.dtype} on {weight.device}: wanted float32 "
            "and bfloat16 on one device"
        )
    product = by_torch if dispatch.choose("linear_bfloat16", x.device.type) == "torch" else reference
    with torch.no_grad():
        y = product(x.bfloat16(), weight)
        return y if bias is None else y.add_(bias)


def reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """bfloat16 (R, D_in), (D_out, D_in) -> float32 (R, D_out): the definition, with sums in float64."""
    return (x.double() @ weight.double().t()).bfloat16().float()


def by_torch(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The same with torch's product, ROWS rows at a time."""
    y = x.new_empty(len(x), len(weight), dtype=torch.float32)
    for start in range(0, len(x), ROWS):
        rows = x[start : start + ROWS]
        whole = F.pad(rows, (0, 0, 0, ROWS - len(rows))) if len(rows) < ROWS else rows
        y[start : start + ROWS] = F.linear(whole, weight)[: len(rows)]
    return y
