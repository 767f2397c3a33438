"""The MLP of a block: the public op, its reference, the rule, and kernels with GELU inside their products."""

from dnagpt_fast.ops.mlp.op import mlp

__all__ = ["mlp"]
