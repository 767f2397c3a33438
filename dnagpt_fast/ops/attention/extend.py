"""A step of decoding: the newest token of each sequence goes into its cache and attends to all tokens in it."""

import math

import torch

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention.op import DTYPES, attention_decode
from dnagpt_fast.ops.attention.reference import write_newest
from dnagpt_fast.ops.attention.rule import decode_implementation_for
from dnagpt_fast.ops.triton_settings import check_may_run


def attention_extend(
    qkv: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_lengths: torch.Tensor,
    *,
    scale: float | None = None,
) -> torch.Tensor:
    """Writes one key and value per sequence into the caches, and returns the attention of its query; no gradient.

    qkv            (R, 3HK): the packed projections of the newest token of sequence b in row b; rows from B on are spare
    k_cache        (B, H, S, K), last stride 1, changed in place; likewise v_cache. Slots from cache_lengths[b] on are
                   ignored, but must be finite: make a cache with torch.zeros.
    cache_lengths  int32 or int64 (B,): tokens of sequence b in the cache before this one; less than S
    scale          default 1 / sqrt(K); positive

    Returns o (R, HK), zero in the spare rows. The lengths are not changed, and their values are not checked (that would
    wait for a GPU). Raises ValueError for shapes, dtypes or devices that do not fit.

    "separate", the CPU's implementation, is two indexed writes and `attention_decode`; "triton" is one kernel for
    caches of up to 512 slots and two for longer ones.

    >>> cache = torch.zeros(2, 1, 2, 8, 4)
    >>> attention_extend(torch.ones(3, 24), *cache, torch.zeros(1, dtype=torch.int64)).sum(1).tolist()
    [8.0, 0.0, 0.0]
    """
    _check(qkv, k_cache, v_cache, cache_lengths)
    batch, heads, _, size = k_cache.shape
    if scale is None:
        scale = 1 / math.sqrt(size)
    if not 0 < scale < math.inf:
        raise ValueError(f"attention_extend: scale is {scale}; wanted a positive number")
    chosen = dispatch.choose("attention_extend", qkv.device.type)
    if chosen == "rule":
        chosen = "triton" if decode_implementation_for(k_cache).name == "triton" else "separate"
    if chosen == "triton":
        from dnagpt_fast.ops.attention.extend_kernel import attention_extend_triton

        check_may_run("attention_extend", qkv, "separate")
        return attention_extend_triton(qkv, k_cache, v_cache, cache_lengths, scale=scale)
    q = write_newest(qkv, k_cache, v_cache, cache_lengths)
    o = attention_decode(q, k_cache, v_cache, cache_lengths + 1, scale=scale)
    out = qkv.new_zeros(len(qkv), heads * size)
    out[:batch] = o.reshape(batch, -1)
    return out


def _check(
    qkv: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, cache_lengths: torch.Tensor
) -> None:
    fits = qkv.dim() == 2 and k_cache.dim() == 4 and k_cache.shape == v_cache.shape
    if fits:
        batch, heads, _, size = k_cache.shape
        fits = qkv.shape[1] == 3 * heads * size and len(qkv) >= batch
    if not fits:
        raise ValueError(
            f"attention_extend: qkv, k_cache, v_cache have shapes {tuple(qkv.shape)}, {tuple(k_cache.shape)}, "
            f"{tuple(v_cache.shape)}; wanted (R, 3HK) and twice (B, H, S, K) with R >= B"
        )
    if qkv.dtype not in DTYPES or k_cache.dtype != qkv.dtype or v_cache.dtype != qkv.dtype:
        raise ValueError(
            f"attention_extend: qkv, k_cache, v_cache are {qkv.dtype}, {k_cache.dtype}, {v_cache.dtype}; "
            f"wanted one dtype of {', '.join(map(str, DTYPES))}"
        )
    if k_cache.stride(-1) != 1 or v_cache.stride(-1) != 1:
        raise ValueError(
            f"attention_extend: the caches have strides {k_cache.stride()}, {v_cache.stride()}; "
            "wanted a last stride of 1"
        )
    if cache_lengths.dtype not in (torch.int32, torch.int64) or cache_lengths.shape != k_cache.shape[:1]:
        raise ValueError(
            f"attention_extend: cache_lengths is {cache_lengths.dtype} {tuple(cache_lengths.shape)}; "
            f"wanted int32 or int64 {(k_cache.shape[0],)}"
        )
    if not k_cache.device == v_cache.device == cache_lengths.device == qkv.device:
        raise ValueError(
            f"attention_extend: qkv is on {qkv.device}, the caches on {k_cache.device} and {v_cache.device}, "
            f"cache_lengths on {cache_lengths.device}; wanted one device"
        )
