"""Attention: the public ops, their reference, the rule that chooses and the kernels."""

from dnagpt_fast.ops.attention.op import attention, attention_decode, attention_packed

__all__ = ["attention", "attention_decode", "attention_packed"]
