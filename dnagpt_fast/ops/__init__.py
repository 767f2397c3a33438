"""The ops, each with a plain reference and its kernels behind one public function."""

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention import attention, attention_decode
from dnagpt_fast.ops.combined_loss import CombinedLoss, combined_loss

__all__ = ["CombinedLoss", "attention", "attention_decode", "combined_loss", "dispatch"]
