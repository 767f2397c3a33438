"""The combined loss: the public op, its reference, the CPU implementation and the Triton kernels."""

from dnagpt_fast.ops.combined_loss.op import CombinedLoss, combined_loss

__all__ = ["CombinedLoss", "combined_loss"]
