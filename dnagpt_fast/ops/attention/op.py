"""Fused self-attention, and attention over a key-value cache for decoding."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention.decode_grouped import attention_decode_grouped
from dnagpt_fast.ops.attention.reference import attention_decode_reference, attention_reference, visible_keys
from dnagpt_fast.ops.attention.rule import Rule, decode_implementation_for, implementation_for
from dnagpt_fast.ops.triton_settings import check_may_run

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | None = None,
    causal: bool = True,
    key_mask: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    return_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """softmax(scale * q k^T) v over the keys that each query may see (Vaswani et al. 2017).

    q, k, v     (B, H, T, K) of one floating dtype and device, with any strides: views of a packed qkv projection
                are not copied
    scale       default 1 / sqrt(K); positive
    causal      True: query i sees the keys j <= i; False: it sees all keys
    key_mask    bool (B, T), False where the key is padding
    cu_seqlens  int32 (S + 1,), ascending: B is 1 and tokens cu_seqlens[s] : cu_seqlens[s + 1] are sequence s;
                a query sees its own sequence only. A token outside every sequence sees nothing.
    return_lse  also return the log-sum-exp of the scaled scores

    Returns o (B, H, T, K) in q's dtype, laid out so that `o.transpose(1, 2).reshape(B, T, H * K)` makes no copy, and
    with return_lse the natural-log lse (B, H, T) in float32. A query that sees no key has o = 0, lse = -inf and zero
    gradients. A NaN or infinity in v may spread to every query of its head, also across the sequences of cu_seqlens and
    from a masked key: an unseen key's weight is 0, and 0 * NaN is NaN (as in FlashAttention). Raises ValueError for
    shapes, dtypes or devices that do not fit.
    """
    _check_attention(q, k, v, key_mask, cu_seqlens)
    scale = _positive("attention", q, scale)
    rule = _chosen(q, masked=key_mask is not None or cu_seqlens is not None, return_lse=return_lse)
    if rule.name == "sdpa":
        o = _sdpa(q, k, v, scale, causal, key_mask, cu_seqlens, rule.backends)
        if not return_lse:
            return o
        # torch's SDPA does not return its log-sum-exp, so the reference computes it
        return o, attention_reference(
            q, k, v, scale=scale, causal=causal, key_mask=key_mask, cu_seqlens=cu_seqlens
        )[1]
    function = attention_reference
    if rule.name == "triton":
        # imported only here: Triton exists for Linux only
        from dnagpt_fast.ops.attention.launch import attention_triton as function

        check_may_run("attention", q, "sdpa")
    o, lse = function(q, k, v, scale=scale, causal=causal, key_mask=key_mask, cu_seqlens=cu_seqlens)
    return (o, lse) if return_lse else o


def attention_packed(
    qkv: torch.Tensor,
    *,
    scale: float | None = None,
    causal: bool = True,
    key_mask: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
) -> torch.Tensor:
    """`attention` of a packed projection: qkv (B, T, 3, H, K), q, k and v in this order; o (B, H, T, K).

    The Triton kernels then write the gradient of qkv directly, instead of assembling it from dq, dk and dv.
    Raises ValueError as `attention` does.
    """
    if qkv.dim() != 5 or qkv.shape[2] != 3:
        raise ValueError(f"attention_packed: qkv has shape {tuple(qkv.shape)}; wanted (B, T, 3, H, K)")
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    if _chosen(q, masked=key_mask is not None or cu_seqlens is not None, return_lse=False).name != "triton":
        o = attention(q, k, v, scale=scale, causal=causal, key_mask=key_mask, cu_seqlens=cu_seqlens)
        return cast(torch.Tensor, o)
    from dnagpt_fast.ops.attention.launch import attention_packed_triton

    _check_attention(q, k, v, key_mask, cu_seqlens)
    check_may_run("attention", q, "sdpa")
    scale = _positive("attention_packed", q, scale)
    return attention_packed_triton(qkv, scale=scale, causal=causal, key_mask=key_mask, cu_seqlens=cu_seqlens)


def attention_decode(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_lengths: torch.Tensor,
    *,
    scale: float | None = None,
) -> torch.Tensor:
    """Attention of the newest Q tokens of each sequence over its key-value cache; no gradient.

    q              (B, H, Q, K): the last Q tokens, whose keys and values are already in the caches
    k_cache        (B, H, S, K) any strides; likewise v_cache. Slots from cache_lengths[b] on are ignored, but must
                   be finite: make a cache with torch.zeros.
    cache_lengths  int32 or int64 (B,): tokens of sequence b in the cache, including the Q new ones; Q..S

    Returns o (B, H, Q, K): query t of sequence b is at position cache_lengths[b] - Q + t and sees the keys up to
    its own. Raises ValueError for shapes, dtypes or devices that do not fit. The values of the lengths are not checked
    (that would wait for the GPU).
    """
    _check_decode(q, k_cache, v_cache, cache_lengths)
    scale = _positive("attention_decode", q, scale)
    chosen = dispatch.choose("attention_decode", q.device.type)
    if chosen == "rule":
        chosen = decode_implementation_for(q).name
    if chosen == "grouped":
        return attention_decode_grouped(q, k_cache, v_cache, cache_lengths, scale=scale)
    if chosen == "sdpa":
        return _sdpa_decode(q, k_cache, v_cache, cache_lengths, scale)
    if chosen == "triton":
        from dnagpt_fast.ops.attention.decode_kernels import attention_decode_triton

        check_may_run("attention_decode", q, "grouped")
        return attention_decode_triton(q, k_cache, v_cache, cache_lengths, scale=scale)
    return attention_decode_reference(q, k_cache, v_cache, cache_lengths, scale=scale)[0]


def _chosen(q: torch.Tensor, *, masked: bool, return_lse: bool) -> Rule:
    """The implementation that runs: a row of the rule, or the implementation chosen by name."""
    chosen = dispatch.choose("attention", q.device.type)
    if chosen == "rule":
        return implementation_for(q, masked=masked, return_lse=return_lse)
    return Rule(chosen, "chosen by name")


def _sdpa(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    causal: bool,
    key_mask: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    backends: tuple[SDPBackend, ...] = (),
) -> torch.Tensor:
    if backends:  # only rules without masks name backends
        with sdpa_kernel(list(backends), set_priority=True):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    if key_mask is None and cu_seqlens is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    visible = visible_keys(q.shape[2], q.device, causal, key_mask, cu_seqlens)
    seen = visible.any(-1, keepdim=True)
    # torch does not define the result of a row without a key, so such a row sees every key and is then set to 0
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=visible | ~seen, scale=scale)
    return o.where(seen, 0)


def _sdpa_decode(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, cache_lengths: torch.Tensor, scale: float
) -> torch.Tensor:
    if q.device.type == "cpu" and not torch.compiler.is_compiling():
        longest = int(cache_lengths.max()) if len(cache_lengths) else 0
        k_cache, v_cache = k_cache[:, :, :longest], v_cache[:, :, :longest]
    position = cache_lengths[:, None] - q.shape[2] + torch.arange(q.shape[2], device=q.device)  # (B, Q)
    visible = torch.arange(k_cache.shape[2], device=q.device) <= position[:, None, :, None]  # (B, 1, Q, S)
    return F.scaled_dot_product_attention(q, k_cache, v_cache, attn_mask=visible, scale=scale)


def _positive(op: str, q: torch.Tensor, scale: float | None) -> float:
    if scale is None:
        return 1 / math.sqrt(q.shape[-1])
    if not 0 < scale < math.inf:
        raise ValueError(f"{op}: scale is {scale}; wanted a positive number")
    return scale


def _check_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    key_mask: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> None:
    if q.dim() != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(
            f"attention: q, k, v have shapes {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}; "
            "wanted one (B, H, T, K)"
        )
    _check_kinds("attention", q, k, v)
    batch, _, tokens, _ = q.shape
    if key_mask is not None and (key_mask.dtype != torch.bool or key_mask.shape != (batch, tokens)):
        raise ValueError(
            f"attention: key_mask is {key_mask.dtype} {tuple(key_mask.shape)}; "
            f"wanted bool {(batch, tokens)}, True where a key counts"
        )
    if cu_seqlens is not None:
        if cu_seqlens.dtype != torch.int32 or cu_seqlens.dim() != 1 or len(cu_seqlens) < 1:
            raise ValueError(
                f"attention: cu_seqlens is {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}; "
                "wanted int32 (sequences + 1,)"
            )
        if batch != 1:
            raise ValueError(f"attention: cu_seqlens packs sequences along T, so B must be 1, not {batch}")
    for name, tensor in (("key_mask", key_mask), ("cu_seqlens", cu_seqlens)):
        if tensor is not None and tensor.device != q.device:
            raise ValueError(f"attention: {name} is on {tensor.device}, q on {q.device}")


def _check_decode(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, cache_lengths: torch.Tensor
) -> None:
    fits = q.dim() == 4 and k_cache.dim() == 4 and k_cache.shape == v_cache.shape
    fits = fits and (*q.shape[:2], q.shape[3]) == (*k_cache.shape[:2], k_cache.shape[3])
    if not fits or q.shape[2] > k_cache.shape[2]:
        raise ValueError(
            f"attention_decode: q, k_cache, v_cache have shapes {tuple(q.shape)}, {tuple(k_cache.shape)}, "
            f"{tuple(v_cache.shape)}; wanted (B, H, Q, K) and twice (B, H, S, K) with Q <= S"
        )
    _check_kinds("attention_decode", q, k_cache, v_cache)
    if cache_lengths.dtype not in (torch.int32, torch.int64) or cache_lengths.shape != q.shape[:1]:
        raise ValueError(
            f"attention_decode: cache_lengths is {cache_lengths.dtype} {tuple(cache_lengths.shape)}; "
            f"wanted int32 or int64 {(q.shape[0],)}"
        )
    if cache_lengths.device != q.device:
        raise ValueError(f"attention_decode: cache_lengths is on {cache_lengths.device}, q on {q.device}")


def _check_kinds(op: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    if q.dtype not in DTYPES or k.dtype != q.dtype or v.dtype != q.dtype:
        raise ValueError(
            f"{op}: q, k, v are {q.dtype}, {k.dtype}, {v.dtype}; "
            f"wanted one dtype of {', '.join(map(str, DTYPES))}"
        )
    if k.device != q.device or v.device != q.device:
        raise ValueError(f"{op}: q, k, v are on {q.device}, {k.device}, {v.device}; wanted one device")
