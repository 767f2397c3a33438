"""Attention functions of transformers' interface: one whose weights can be looked at, and the kernels of this package.

`attn_implementation` takes any registered function. "eager" is this file's, "dnagpt" are the kernels of
ops/attention, "sdpa", "flex_attention" and the flash functions are transformers'. An attention function gets q
(B, H, T, K), k and v (B, H, S, K) and the mask that its mask function made, and returns o (B, T, H, K) and the weights.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dnagpt_fast.hub.config import DNAGPTConfig
from dnagpt_fast.model.layers import CausalSelfAttention
from dnagpt_fast.ops.attention.op import attention, attention_decode

KERNELS = "dnagpt"


class DNAGPTAttention(CausalSelfAttention):
    """Self-attention that can use a cache and any attention function; tensors as those of the layer it extends."""

    def __init__(self, config: DNAGPTConfig, layer_idx: int) -> None:
        shape = config.model_config()
        super().__init__(shape)
        self.config = config
        # read by attention functions and by those who serve models through them (vLLM)
        self.layer_idx = layer_idx
        self.head_dim = shape.head_size
        self.scaling = shape.head_size**-0.5
        self.is_causal = True

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, mask: Any = None, cache: Any = None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, D) -> (B, T, D) and the weights (B, H, T, S), where the function gives any.

        kwargs  handed to the attention function as they are
        """
        q, k, v = self.heads(x)
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        o, weights = attend(self, q, k, v, mask, dropout=0.0, scaling=self.scaling, **kwargs)
        return self.c_proj(o.reshape(x.shape)), weights


def eager_attention(
    module: nn.Module,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention whose weights (B, H, T, S) can be looked at. mask: float, added to the scores, or bool, True where a
    key is seen; None is causal."""
    scores = q @ k.transpose(-1, -2) * scaling
    if mask is None:
        T, S = scores.shape[-2:]
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + mask
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
    return (weights @ v).transpose(1, 2), weights


def kernel_attention(
    module: nn.Module,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    cu_seq_lens_q: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """By ops.attention: without a cache, with padding (mask bool (B, T)) or sequences laid end to end (cu_seq_lens_q,
    B = 1, which say what a mask made from restarting positions says), and a new token after a cache without padding.
    Masks of any other kind go to torch's attention."""
    if cu_seq_lens_q is not None and q.shape[0] == 1 and q.shape[2] == k.shape[2]:
        o = cast(torch.Tensor, attention(q, k, v, scale=scaling, cu_seqlens=cu_seq_lens_q.to(torch.int32)))
    elif mask is not None and mask.dim() == 4:
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
    elif q.shape[2] == k.shape[2]:
        o = cast(torch.Tensor, attention(q, k, v, scale=scaling, key_mask=mask))
    else:
        lengths = torch.full((q.shape[0],), k.shape[2], dtype=torch.int32, device=q.device)
        o = attention_decode(q, k, v, lengths, scale=scaling)
    return o.transpose(1, 2), None


def kernel_mask(*, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """What `kernel_attention` wants: bool (B, T) for padding without a cache, else as torch's attention has it."""
    queries = kwargs["q_length"]
    if attention_mask is not None and attention_mask.shape[1] == kwargs["kv_length"] == queries:
        return attention_mask
    if 1 < queries != kwargs["kv_length"]:
        # for torch's attention None can also mean an empty static cache, whose spare keys it cuts off
        kwargs["allow_is_causal_skip"] = False
    return sdpa_mask(attention_mask=attention_mask, **kwargs)


AttentionInterface.register(KERNELS, kernel_attention)
AttentionMaskInterface.register(KERNELS, kernel_mask)
