"""One token more in each cache, and its attention, in one launch: keys and values are written by the kernel that reads
them.

A program walks up to KEYS keys of one head, BS at a time, with the softmax of FlashAttention (Dao et al. 2022); longer
caches are split into parts of KEYS, which the kernel of decode_kernels.py combines. The new key is not read back from
memory: the program that meets its slot takes it from the projection, and writes it. BS and KEYS depend on the dtype
only, so a sequence's result has the same bits in any batch and with any cache capacity.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from dnagpt_fast.ops.attention.decode_kernels import attention_decode_combine_kernel
from dnagpt_fast.ops.attention.tiles import decode_keys
from dnagpt_fast.ops.registration import register_op
from dnagpt_fast.ops.triton_settings import COUNTS, LAUNCH, accumulator, product_constants

KEYS = 512  # keys of a program: a whole window of most of the published models


@triton.jit(do_not_specialize=COUNTS)
def attention_extend_kernel(
    p_qkv, p_k, p_v, p_length, p_o, p_part_o, p_lse2, scale_log2,
    stride_qr, stride_kb, stride_kh, stride_kt, stride_vb, stride_vh, stride_vt, stride_or, B, H, S, SPLITS,
    K: tl.constexpr, BS: tl.constexpr, KEYS: tl.constexpr, WHOLE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """KEYS keys of one head for the newest query of its sequence; zeros in rows without a sequence.

    Grid: (SPLITS * H * R,). p_qkv (R, 3HK) by rows, p_k and p_v (B, H, S, K) by strides, p_length (B,) before the new
    token, p_o (R, HK) by rows, p_part_o (B, H, SPLITS, K), p_lse2 (B, H, SPLITS). WHOLE: one part, which writes p_o.
    """
    i_split = tl.program_id(0) % SPLITS
    i_head = tl.program_id(0) // SPLITS
    i_b = (i_head // H).to(tl.int64)
    i_h = (i_head % H).to(tl.int64)
    o_h = tl.arange(0, K)
    o_j = tl.arange(0, BS)
    p_o += i_b * stride_or + i_h * K
    if i_b >= B:
        tl.store(p_o + o_h, tl.zeros([K], dtype=p_o.dtype.element_ty))  # by every split: the same zeros
        return
    position = tl.minimum(tl.load(p_length + i_b), S).to(tl.int32)
    length = tl.minimum(position + 1, S)  # a full cache takes no token
    i_first = i_split * KEYS
    if i_first >= length:
        return
    p_qkv += i_b * stride_qr + i_h * K
    p_k += i_b * stride_kb + i_h * stride_kh
    p_v += i_b * stride_vb + i_h * stride_vh
    b_q = tl.load(p_qkv + o_h).to(ACC) * scale_log2
    b_new_k = tl.load(p_qkv + H * K + o_h)
    b_new_v = tl.load(p_qkv + 2 * H * K + o_h)
    i_last = tl.minimum(i_first + KEYS, length)
    if (position >= i_first) & (position < i_last):
        tl.store(p_k + position.to(tl.int64) * stride_kt + o_h, b_new_k)
        tl.store(p_v + position.to(tl.int64) * stride_vt + o_h, b_new_v)
    b_o = tl.zeros([K], dtype=ACC)
    b_m = tl.full([], float("-inf"), dtype=ACC)
    b_l = tl.zeros([], dtype=ACC)
    for i_s in tl.range(i_first, i_last, BS):
        o_s = i_s + o_j
        m_old = (o_s < position)[:, None]
        m_new = (o_s == position)[:, None]
        # [BS, K]
        b_k = tl.load(p_k + o_s[:, None].to(tl.int64) * stride_kt + o_h[None, :], mask=m_old, other=0.0)
        # [BS, K]
        b_v = tl.load(p_v + o_s[:, None].to(tl.int64) * stride_vt + o_h[None, :], mask=m_old, other=0.0)
        b_k = tl.where(m_new, b_new_k[None, :], b_k).to(ACC)
        b_v = tl.where(m_new, b_new_v[None, :], b_v).to(ACC)
        b_s = tl.where(o_s < length, tl.sum(b_k * b_q[None, :], 1), float("-inf"))
        b_m_next = tl.maximum(b_m, tl.max(b_s, 0))
        b_p = tl.exp2(b_s - b_m_next)
        b_fade = tl.exp2(b_m - b_m_next)
        b_l = b_l * b_fade + tl.sum(b_p, 0)
        b_o = b_o * b_fade + tl.sum(b_p[:, None] * b_v, 0)
        b_m = b_m_next
    b_o = b_o / b_l
    if WHOLE:
        tl.store(p_o + o_h, b_o.to(p_o.dtype.element_ty))
    else:
        o_part = i_head.to(tl.int64) * SPLITS + i_split
        tl.store(p_part_o + o_part * K + o_h, b_o)
        tl.store(p_lse2 + o_part, b_m + tl.log2(b_l))


def _extend_fake(qkv, k_cache, v_cache, cache_lengths, scale):
    return qkv.new_empty(len(qkv), qkv.shape[1] // 3)


def _extend(qkv: Tensor, k_cache: Tensor, v_cache: Tensor, cache_lengths: Tensor, scale: float) -> Tensor:
    batch, heads, slots, size = k_cache.shape
    o = qkv.new_empty(len(qkv), heads * size)
    if not o.numel() or not slots:
        return o.zero_()
    qkv, lengths = qkv.contiguous(), cache_lengths.contiguous()
    keys = decode_keys(qkv.dtype)
    splits = triton.cdiv(slots, KEYS)
    whole = splits == 1
    parts = 0 if whole else batch * heads * splits
    part_o = qkv.new_empty((parts, size), dtype=accumulator(qkv))
    part_lse2 = qkv.new_empty((parts,), dtype=accumulator(qkv))
    acc = product_constants(qkv)["ACC"]
    warps = 4 if size * qkv.element_size() <= 128 else 8
    with torch.cuda.device_of(qkv):
        attention_extend_kernel[(splits * heads * len(qkv),)](
            qkv, k_cache, v_cache, lengths, o, part_o, part_lse2, scale * math.log2(math.e),
            qkv.stride(0), *k_cache.stride()[:3], *v_cache.stride()[:3], o.stride(0), batch, heads, slots, splits,
            K=size, BS=keys, KEYS=KEYS, WHOLE=whole, ACC=acc, num_warps=warps, num_stages=1, **LAUNCH,
        )  # fmt: skip
        if not whole and batch:
            attention_decode_combine_kernel[(batch * heads,)](
                part_o, part_lse2, lengths, o, o.stride(0), size, 0, heads, 1, slots, splits,
                K=size, BS=KEYS, BLOCK=16, NEW=1, ACC=acc, num_warps=4, num_stages=1, **LAUNCH,
            )  # fmt: skip
    return o


EXTEND = register_op(
    "attention_extend(Tensor qkv, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor cache_lengths, float scale) -> Tensor",
    _extend,
    fake=_extend_fake,
)


def attention_extend_triton(
    qkv: Tensor, k_cache: Tensor, v_cache: Tensor, cache_lengths: Tensor, *, scale: float
) -> Tensor:
    """As ops.attention_extend; the last stride of both caches must be 1."""
    o: Tensor = EXTEND(qkv, k_cache, v_cache, cache_lengths, scale)
    return o
