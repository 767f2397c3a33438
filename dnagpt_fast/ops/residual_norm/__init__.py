"""Residual addition and LayerNorm in one pass: the public op, its reference and the kernels."""

from dnagpt_fast.ops.residual_norm.op import residual_norm

__all__ = ["residual_norm"]
