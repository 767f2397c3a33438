"""Which implementation of attention a CUDA tensor gets when the table says "rule", and why.

The rows are read from the top and the first that fits decides. They rest on published figures of others (the reasons
name them), not on measurements of ours: `python -m benchmarks.gpu_attention` shows on a card which rows hold.
"""

from dataclasses import dataclass

import torch

from dnagpt_fast.ops.attention.tiles import HEAD_SIZES
from dnagpt_fast.ops.triton_settings import architecture

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Rule:
    """None in a field fits everything. tokens: the fewest T it holds for."""

    name: str
    reason: str
    architectures: tuple[str, ...] | None = None
    head_sizes: tuple[int, ...] | None = None
    tokens: int = 0


SDPA_IS_FASTER = (
    Rule(
        "sdpa",
        "cuDNN and FlashAttention-4 reach 2.7x Triton on Blackwell (FlashAttention-4); "
        "nobody tunes head size 32 there, so it stays with Triton",
        ("sm_100", "sm_103"),
        (64, 128),
    ),
    Rule(
        "sdpa",
        "cuDNN and FlashAttention-3 overlap softmax with the products, which Triton does not on Hopper: "
        "13-20 % at head size 64, 30-40 % at 128; level below (tritonbench, H100)",
        ("sm_90",),
        (64, 128),
        4096,
    ),
    Rule(
        "sdpa",
        "FlashAttention-2 beats Triton at head size 128 on Ampere and Ada, not at 64 (flash-attention issue 1556)",
        ("sm_80", "sm_86", "sm_89"),
        (128,),
    ),
)


def decode_implementation_for(q: torch.Tensor) -> Rule:
    """The rule for the newest queries q (B, H, Q, K) against a cache."""
    if q.dtype == torch.float64 or q.shape[-1] not in HEAD_SIZES:
        return Rule("sdpa", f"the Triton kernels take head sizes {HEAD_SIZES} in fp16, bf16 and fp32")
    return Rule(
        "triton", "SDPA has no cache lengths: it would read every slot under a mask, on one SM a head"
    )


def implementation_for(
    q: torch.Tensor, *, masked: bool = False, return_lse: bool = False, deterministic: bool | None = None
) -> Rule:
    """The rule for q (B, H, T, K). masked: with key_mask or cu_seqlens; deterministic: None asks torch."""
    size = q.shape[-1]
    if q.dtype == torch.float64 or size not in HEAD_SIZES:
        return Rule("sdpa", f"the Triton kernels take head sizes {HEAD_SIZES} in fp16, bf16 and fp32")
    if masked:
        return Rule("triton", "SDPA would need a (T, T) mask in memory and lose its fast kernels")
    if return_lse:
        return Rule("triton", "SDPA keeps its log-sum-exp to itself")
    if torch.are_deterministic_algorithms_enabled() if deterministic is None else deterministic:
        return Rule(
            "triton", "its backward is deterministic by construction, SDPA's is not or is slower for it"
        )
    if q.dtype in HALF:
        for rule in SDPA_IS_FASTER:
            fits_card = rule.architectures is None or architecture(q.device) in rule.architectures
            fits_size = rule.head_sizes is None or size in rule.head_sizes
            if fits_card and fits_size and q.shape[2] >= rule.tokens:
                return rule
    return Rule("triton", "no row says that SDPA is faster here")
