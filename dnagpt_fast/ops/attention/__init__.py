"""Attention: the public ops, their reference, the kernels, and the rule that chooses between them."""

from dnagpt_fast.ops.attention.op import attention, attention_decode, attention_packed

__all__ = ["attention", "attention_decode", "attention_packed"]
