"""Attention in plain torch: the definition that the kernels are compared with.

    s_ij = scale * q_i . k_j          for the keys j that query i may see
    p_ij = exp(s_ij - lse_i),         lse_i = log sum_j exp(s_ij)
    o_i  = sum_j p_ij v_j

(Vaswani et al. 2017, equation 1; lse as in Dao et al. 2022.) A query that sees no key has o = 0, lse = -inf and zero
gradients. Products are computed in the inputs' dtype, as in plain torch, with whose error tests/closeness.py compares.
"""

import torch


def attention_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float,
    causal: bool = True,
    key_mask: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q, k, v (B, H, T, K) -> o (B, H, T, K) in their dtype, lse (B, H, T) in float32 or float64."""
    visible = visible_keys(q.shape[2], q.device, causal, key_mask, cu_seqlens)
    return attend(q, k, v, visible, scale)


def attention_decode_reference(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_lengths: torch.Tensor,
    *,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q (B, H, Q, K): the last Q of cache_lengths (B,) tokens; caches (B, H, S, K). -> o as q, lse (B, H, Q)."""
    position = cache_lengths[:, None] - q.shape[2] + torch.arange(q.shape[2], device=q.device)  # (B, Q)
    visible = torch.arange(k_cache.shape[2], device=q.device) <= position[:, None, :, None]  # (B, 1, Q, S)
    return attend(q, k_cache, v_cache, visible, scale)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The three equations above; `visible` is bool and broadcasts to (B, H, T, keys)."""
    weights, lse = attention_weights(q, k, visible, scale)
    return weights.to(q.dtype) @ v, lse


def attention_weights(
    q: torch.Tensor, k: torch.Tensor, visible: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """p (B, H, T, keys) and lse (B, H, T) of the first two equations, in float32 or float64."""
    scores = ((q * scale) @ k.transpose(-1, -2)).to(torch.promote_types(q.dtype, torch.float32))
    scores = scores.masked_fill(~visible, -torch.inf)
    lse = torch.logsumexp(scores, dim=-1)
    seen = visible.any(-1, keepdim=True)
    return torch.exp(scores - lse.unsqueeze(-1).where(seen, 0.0)), lse


def visible_keys(
    tokens: int,
    device: torch.device,
    causal: bool,
    key_mask: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> torch.Tensor:
    """bool, broadcasts to (B, 1, T, T): whether query i may see key j. Tokens outside every sequence see nothing."""
    i = torch.arange(tokens, device=device)
    visible = (i[:, None] >= i) if causal else torch.ones(tokens, tokens, dtype=torch.bool, device=device)
    if cu_seqlens is not None:
        sequence = torch.searchsorted(cu_seqlens, i.to(cu_seqlens.dtype), right=True)  # 1-based
        inside = (sequence > 0) & (sequence < len(cu_seqlens))
        visible = visible & (sequence[:, None] == sequence) & inside[:, None]
    visible = visible[None, None]
    if key_mask is not None:
        visible = visible & key_mask[:, None, None, :]
    return visible


def write_newest(
    qkv: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, cache_lengths: torch.Tensor
) -> torch.Tensor:
    """Writes the keys and values of qkv (R, 3HK) into slot cache_lengths[b] of the caches (B, H, S, K), for the first B
    rows; q (B, H, 1, K). The caches must have room."""
    B, H, _, K = k_cache.shape
    q, k, v = qkv[:B].view(B, 3, H, K).unbind(1)
    each = torch.arange(B, device=qkv.device)
    k_cache[each, :, cache_lengths] = k
    v_cache[each, :, cache_lengths] = v
    return q[:, :, None]
