"""Residual addition and LayerNorm in plain torch: the definition that the kernels are compared with.

    s = x + b                                                      the residual stream after one more branch
    y = (s - mean(s)) / sqrt(var(s) + eps) * weight + bias         (Ba et al., arXiv 1607.06450; var is biased)

s is rounded to the stream's dtype once, and y is computed from the rounded s, in float32 or float64.
"""

import torch
import torch.nn.functional as F


def residual_norm_reference(
    stream: torch.Tensor,
    branch: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(s in the stream's dtype, y in `dtype`); shapes as in op.py."""
    wide = torch.promote_types(stream.dtype, torch.float32)
    added = (stream + branch).to(stream.dtype)
    bias = None if bias is None else bias.to(wide)
    return added, F.layer_norm(added.to(wide), weight.shape, weight.to(wide), bias, eps).to(dtype)
