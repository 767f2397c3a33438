"""Attention functions for transformers' interface: one returns its weights, one uses our kernels.

`attn_implementation` takes any registered function. "eager" is the one of this file, "dnagpt" uses the
kernels of ops/attention; "sdpa", "flex_attention" and the flash functions are transformers'. An attention
function gets q (B, H, T, K), k and v (B, H, S, K) and the mask made by its mask function. It returns
o (B, T, H, K) and the weights.
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
    """Self-attention that can use a cache and any attention function; its tensors are those of the layer it
    extends."""

    def __init__(self, config: DNAGPTConfig, layer_idx: int) -> None:
        shape = config.model_config()
        super().__init__(shape)
        self.config = config
        # read by attention functions, and by servers that use them (vLLM)
        self.layer_idx = layer_idx
        self.head_dim = shape.head_size
        self.scaling = shape.head_size**-0.5
        self.is_causal = True

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, mask: Any = None, cache: Any = None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, D) -> (B, T, D) and the weights (B, H, T, S), if the function returns them.

        kwargs  passed to the attention function
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
    """Attention that returns its weights (B, H, T, S). mask: float, added to the scores, or bool, True where
    a key is visible; None: causal."""
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
    """Attention by ops.attention, in three cases: without a cache, with padding (mask bool (B, T)); packed
    sequences (cu_seq_lens_q, B = 1, which replaces a mask made from restarting positions); a new token after
    a cache without padding. With any other mask torch's attention is used."""
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
    """The mask for `kernel_attention`: bool (B, T) for padding without a cache, otherwise that of torch's
    attention."""
    queries = kwargs["q_length"]
    if attention_mask is not None and attention_mask.shape[1] == kwargs["kv_length"] == queries:
        return attention_mask
    if 1 < queries != kwargs["kv_length"]:
        # with this flag None could mean an empty static cache, whose unused keys torch's attention cuts off
        kwargs["allow_is_causal_skip"] = False
    return sdpa_mask(attention_mask=attention_mask, **kwargs)


AttentionInterface.register(KERNELS, kernel_attention)
AttentionMaskInterface.register(KERNELS, kernel_mask)
