"""y = x W^T + b with int8 weights and int8 inputs: every row of x and of W has its own scale.

    q(v) = round(v / s), s = max |v| / 127 of the row;   y = (q(x) q(W)^T) s_x s_W + b

as LLM.int8() without its outliers (Dettmers et al. 2022, arXiv 2208.07339). The sums of integers are exact, and the
rest is one operation for each number, so a row's bits do not depend on the other rows.
"""

import torch

from dnagpt_fast.ops import dispatch

LARGEST = 127


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 (R, D) -> int8 (R, D), and the scale of each row, float32 (R, 1); a row of zeros has the scale 1, a row
    with NaN the scale NaN, which makes its products NaN.

    >>> quantize_rows(torch.tensor([[1.0, -0.5, 0.0]]))[0].tolist()
    [[127, -64, 0]]
    """
    scale = x.abs().amax(1, keepdim=True) / LARGEST
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    # NaN has no integer: any number will do, since its scale is NaN
    return (x / scale).round_().clamp_(-LARGEST, LARGEST).nan_to_num_(0).to(torch.int8), scale


def linear_int8(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """float32 rows (R, D_in) -> float32 (R, D_out); no gradient.

    weight, scale  int8 (D_out, D_in) and float32 (D_out, 1), from quantize_rows of the weight
    bias           float32 (D_out,)
    Raises ValueError for shapes, dtypes or devices that do not fit.
    """
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != weight.shape[1] or len(scale) != len(weight):
        raise ValueError(
            f"linear_int8: x {tuple(x.shape)}, weight {tuple(weight.shape)}, scale {tuple(scale.shape)}: wanted "
            "(R, D_in), (D_out, D_in) and (D_out, 1)"
        )
    if (x.dtype, weight.dtype, scale.dtype) != (torch.float32, torch.int8, torch.float32):
        raise ValueError(
            f"linear_int8: x is {x.dtype}, weight {weight.dtype}, scale {scale.dtype}: wanted float32, int8, float32"
        )
    if x.device != weight.device:
        raise ValueError(f"linear_int8: x is on {x.device}, weight on {weight.device}")
    product = sums_by_torch if dispatch.choose("linear_int8", x.device.type) == "torch" else sums_reference
    with torch.no_grad():
        rows, of_rows = quantize_rows(x)
        y = product(rows, weight).float().mul_(of_rows).mul_(scale.t())
        return y if bias is None else y.add_(bias)


def sums_reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """int8 (R, D_in), (D_out, D_in) -> int32 (R, D_out): the definition, exact in float64."""
    return (x.double() @ weight.double().t()).to(torch.int32)


def sums_by_torch(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The same with torch's integer product: oneDNN's where the processor has AVX-512 VNNI or AMX, otherwise a loop."""
    return torch._int_mm(x, weight.t())
