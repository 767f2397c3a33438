"""Which implementation of attention a CUDA tensor gets when the dispatch table says "rule", and why.

The rows are read from the top; the first one that fits is used. The row for Hopper is measured (docs/gpu_measured.md).
The others are based on published figures, named in the reasons: `python -m benchmarks.gpu_attention` shows which rows
are right on a card.
"""

from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention.tiles import HEAD_SIZES
from dnagpt_fast.ops.triton_settings import architecture

HALF = (torch.float16, torch.bfloat16)


CUDNN, FLASH = SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION
# torch's own minimum for choosing cuDNN on Hopper: older versions are slower, or wrong for some shapes
LEAST_CUDNN = 91500


@dataclass(frozen=True)
class Rule:
    """A row of the table; None in a field fits everything.

    backends  of SDPA in order of preference, the one that the reason names first; (): torch chooses
    tokens    the smallest T that it applies to
    heads     the smallest number of heads that it applies to
    """

    name: str
    reason: str
    architectures: tuple[str, ...] | None = None
    head_sizes: tuple[int, ...] | None = None
    tokens: int = 0
    heads: int = 0
    backends: tuple[SDPBackend, ...] = ()


SDPA_IS_FASTER = (
    Rule(
        "sdpa",
        "cuDNN, like FlashAttention-4, reaches 2.7x Triton on Blackwell (FlashAttention-4); "
        "head size 32 is not tuned there, so Triton is used for it",
        ("sm_100", "sm_103"),
        (64, 128),
        heads=8,  # cuDNN gave wrong results there for fewer (pytorch issue 193893)
        backends=(CUDNN, FLASH),
    ),
    Rule(
        "sdpa",
        "cuDNN, like FlashAttention-3, overlaps softmax with the products, which Triton does not on Hopper: forward "
        "and backward together take 0.58 to 0.72 of Triton's time at head sizes 64 and 128, 0.70 to 0.81 at 32, from "
        "512 to 4,096 tokens (measured, H200)",
        ("sm_90",),
        (32, 64, 128),
        tokens=512,
        backends=(CUDNN, FLASH),
    ),
    Rule(
        "sdpa",
        "FlashAttention-2 beats Triton at head size 128 on Ampere and Ada, not at 64 (flash-attention issue 1556)",
        ("sm_80", "sm_86", "sm_89"),
        (128,),
        backends=(FLASH,),
    ),
)


@dispatch.constant_when_compiled
def cudnn_attends() -> bool:
    """Whether torch has a cuDNN that is recent enough for the rows above, and may use it."""
    version = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return version is not None and version >= LEAST_CUDNN and torch.backends.cuda.cudnn_sdp_enabled()


def decode_implementation_for(q: torch.Tensor) -> Rule:
    """The rule for the newest queries q (B, H, Q, K) against a cache."""
    if q.dtype == torch.float64 or q.shape[-1] not in HEAD_SIZES:
        return Rule("sdpa", f"the Triton kernels take head sizes {HEAD_SIZES} in fp16, bf16 and fp32")
    return Rule(
        "triton", "SDPA has no cache lengths: it would read every slot under a mask, on one SM per head"
    )


def implementation_for(
    q: torch.Tensor, *, masked: bool = False, return_lse: bool = False, deterministic: bool | None = None
) -> Rule:
    """The rule for q (B, H, T, K). masked: with key_mask or cu_seqlens; deterministic: None takes torch's setting."""
    size = q.shape[-1]
    if q.dtype == torch.float64 or size not in HEAD_SIZES:
        return Rule("sdpa", f"the Triton kernels take head sizes {HEAD_SIZES} in fp16, bf16 and fp32")
    if masked:
        return Rule("triton", "SDPA would need a (T, T) mask in memory and lose its fast kernels")
    if return_lse:
        return Rule("triton", "SDPA does not return its log-sum-exp")
    if torch.are_deterministic_algorithms_enabled() if deterministic is None else deterministic:
        return Rule(
            "triton", "its backward is deterministic by construction, SDPA's is not or is slower for it"
        )
    if q.dtype in HALF:
        for rule in SDPA_IS_FASTER:
            fits_card = rule.architectures is None or architecture(q.device) in rule.architectures
            fits_size = rule.head_sizes is None or size in rule.head_sizes
            fits_shape = q.shape[2] >= rule.tokens and q.shape[1] >= rule.heads
            if fits_card and fits_size and fits_shape and (CUDNN not in rule.backends or cudnn_attends()):
                return rule
    return Rule("triton", "no row says that SDPA is faster here")
