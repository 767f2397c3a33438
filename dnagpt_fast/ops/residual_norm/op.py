"""Residual addition followed by LayerNorm, in one pass over memory forward and one backward."""

import torch

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.residual_norm.reference import residual_norm_reference
from dnagpt_fast.ops.triton_settings import check_may_run

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def residual_norm(
    stream: torch.Tensor,
    branch: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    eps: float = 1e-5,
    dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """s = stream + branch and y = LayerNorm(s) over the last axis; both differentiable once.

    stream, branch  (..., D) of one shape, each of any floating dtype, with any strides
    weight, bias    (D,) of any floating dtype
    dtype           of y; None: that of autocast if it is on for this device, otherwise the stream's

    Returns s in the stream's dtype and y. Sums are in float32 (float64 for a float64 stream) whatever the dtypes.
    Raises ValueError for shapes, dtypes or devices that do not fit.

    >>> s, y = residual_norm(torch.ones(2, 4), torch.arange(4.0).repeat(2, 1), torch.ones(4))
    >>> s[0].tolist(), [round(v, 2) for v in y[0].tolist()]
    ([1.0, 2.0, 3.0, 4.0], [-1.34, -0.45, 0.45, 1.34])
    """
    _check(stream, branch, weight, bias)
    device = stream.device.type
    if dtype is None:
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else stream.dtype
    if dispatch.choose("residual_norm", device) == "reference":
        return residual_norm_reference(stream, branch, weight, bias, eps, dtype)
    # imported only here: Triton exists for Linux only
    from dnagpt_fast.ops.residual_norm.launch import residual_norm_triton

    check_may_run("residual_norm", stream, "reference")
    return residual_norm_triton(stream, branch, weight, bias, eps, dtype)


def _check(
    stream: torch.Tensor, branch: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> None:
    if stream.dim() < 1 or stream.shape != branch.shape:
        raise ValueError(
            f"residual_norm: stream {tuple(stream.shape)}, branch {tuple(branch.shape)}: wanted one shape (..., D)"
        )
    width = stream.shape[-1:]
    for name, tensor, shape in (("branch", branch, None), ("weight", weight, width), ("bias", bias, width)):
        if tensor is None:
            continue
        if shape is not None and tensor.shape != shape:
            raise ValueError(f"residual_norm: {name} is {tuple(tensor.shape)}: wanted {tuple(shape)}")
        if tensor.device != stream.device:
            raise ValueError(f"residual_norm: {name} is on {tensor.device}, stream on {stream.device}")
        if tensor.dtype not in DTYPES or stream.dtype not in DTYPES:
            raise ValueError(
                f"residual_norm: stream is {stream.dtype}, {name} is {tensor.dtype}: wanted dtypes of "
                f"{', '.join(map(str, DTYPES))}"
            )
