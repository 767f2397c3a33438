"""Decoding: attention of the newest few queries of each sequence over its key-value cache, split over the keys.

A program takes BS keys of one head and writes their softmax-weighted mean and log-sum-exp (base 2); a second kernel
combines the parts in order (split keys as in FlashDecoding, Dao et al. 2023). BS depends on the dtype only, so a
sequence's result has the same bits in any batch and with any cache capacity.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from dnagpt_fast.ops.attention.tiles import decode_keys, decode_warps
from dnagpt_fast.ops.registration import register_op
from dnagpt_fast.ops.triton_settings import COUNTS, LAUNCH, accumulator, product_constants

BQ = 16  # the smallest number of rows that a tensor core multiplies


@triton.jit(do_not_specialize=COUNTS)
def attention_decode_part_kernel(
    p_q, p_k, p_v, p_length, p_o, p_lse2, scale_log2,
    stride_qb, stride_qh, stride_qt, stride_qk, stride_kb, stride_kh, stride_kt, stride_kk,
    stride_vb, stride_vh, stride_vt, stride_vk, H, Q, S, SPLITS,
    K: tl.constexpr, BQ: tl.constexpr, BS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """BS keys of one head for BQ queries; parts past the length stay unwritten.

    Grid: (SPLITS * ceil(Q / BQ) * B * H,): only the first axis of a grid may exceed 65,535. p_q (B, H, Q, K), p_k and
    p_v (B, H, S, K) by strides, p_length (B,), p_o (B, H, SPLITS, Q, K), p_lse2 (B, H, SPLITS, Q).
    """
    i_split = tl.program_id(0) % SPLITS
    i_group = tl.program_id(0) // SPLITS
    i_head = i_group // tl.cdiv(Q, BQ)
    i_b = (i_head // H).to(tl.int64)
    i_h = (i_head % H).to(tl.int64)
    i_s = i_split * BS
    length = tl.minimum(tl.load(p_length + i_b), S).to(tl.int32)
    if i_s >= length:
        return
    o_r = (i_group % tl.cdiv(Q, BQ)) * BQ + tl.arange(0, BQ)
    o_j = tl.arange(0, BS)
    o_h = tl.arange(0, K)
    o_s = i_s + o_j
    m_r = o_r < Q
    m_s = o_s < length
    p_q += i_b * stride_qb + i_h * stride_qh
    p_k += i_b * stride_kb + i_h * stride_kh + i_s.to(tl.int64) * stride_kt
    p_v += i_b * stride_vb + i_h * stride_vh + i_s.to(tl.int64) * stride_vt
    # [BQ, K]
    b_q = tl.load(
        p_q + o_r[:, None].to(tl.int64) * stride_qt + o_h[None, :] * stride_qk, mask=m_r[:, None], other=0.0
    )
    # [K, BS]
    b_k = tl.load(
        p_k + o_h[:, None] * stride_kk + o_j[None, :].to(tl.int64) * stride_kt, mask=m_s[None, :], other=0.0
    )
    # [BS, K]
    b_v = tl.load(
        p_v + o_j[:, None].to(tl.int64) * stride_vt + o_h[None, :] * stride_vk, mask=m_s[:, None], other=0.0
    )
    # [BQ, BS]
    b_s = tl.dot(b_q, b_k, input_precision=PRECISION, out_dtype=ACC) * scale_log2
    o_position = length - Q + o_r
    b_s = tl.where(m_s[None, :] & (o_s[None, :] <= o_position[:, None]), b_s, float("-inf"))
    b_m = tl.max(b_s, 1)
    # a query before all of these keys: -inf - -inf is not a number
    b_p = tl.exp2(b_s - tl.where(b_m == float("-inf"), 0.0, b_m)[:, None])
    b_l = tl.sum(b_p, 1)
    b_l = tl.where(b_l == 0.0, 1.0, b_l)
    # [BQ, K]
    b_o = tl.dot(b_p.to(b_v.dtype), b_v, input_precision=PRECISION, out_dtype=ACC) / b_l[:, None]
    o_part = (i_head.to(tl.int64) * SPLITS + i_split) * Q + o_r
    tl.store(p_lse2 + o_part, b_m + tl.log2(b_l), mask=m_r)
    tl.store(p_o + o_part[:, None] * K + o_h[None, :], b_o, mask=m_r[:, None])


@triton.jit(do_not_specialize=COUNTS)
def attention_decode_combine_kernel(
    p_part_o, p_part_lse2, p_length, p_o, stride_ob, stride_oh, stride_ot, H, Q, S, SPLITS,
    K: tl.constexpr, BS: tl.constexpr, BLOCK: tl.constexpr, NEW: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One query: o = sum_i 2^(lse_i - max) o_i / sum_i 2^(lse_i - max). Grid: (Q * B * H,).

    NEW  tokens of the cache that p_length does not count
    """
    i_r = tl.program_id(0) % Q
    i_head = tl.program_id(0) // Q
    i_b = (i_head // H).to(tl.int64)
    i_h = (i_head % H).to(tl.int64)
    parts = tl.cdiv(tl.minimum(tl.load(p_length + i_b) + NEW, S).to(tl.int32), BS)
    o_i = tl.arange(0, BLOCK)
    o_h = tl.arange(0, K)
    p_part_lse2 += i_head.to(tl.int64) * SPLITS * Q + i_r
    p_part_o += (i_head.to(tl.int64) * SPLITS * Q + i_r) * K
    b_o = tl.zeros([K], dtype=ACC)
    b_m = tl.full([], float("-inf"), dtype=ACC)
    b_l = tl.zeros([], dtype=ACC)
    for i_from in tl.range(0, parts, BLOCK):
        m_i = i_from + o_i < parts
        o_part = (i_from + o_i).to(tl.int64) * Q
        b_lse2 = tl.load(p_part_lse2 + o_part, mask=m_i, other=float("-inf"))
        # [BLOCK, K]
        b_part = tl.load(p_part_o + o_part[:, None] * K + o_h[None, :], mask=m_i[:, None], other=0.0)
        b_m_next = tl.maximum(b_m, tl.max(b_lse2, 0))
        b_shift = tl.where(b_m_next == float("-inf"), 0.0, b_m_next)
        b_weight = tl.exp2(b_lse2 - b_shift)
        b_fade = tl.exp2(b_m - b_shift)
        b_l = b_l * b_fade + tl.sum(b_weight, 0)
        b_o = b_o * b_fade + tl.sum(b_weight[:, None] * b_part, 0)
        b_m = b_m_next
    b_o = b_o / tl.where(b_l == 0.0, 1.0, b_l)
    p_o += i_b * stride_ob + i_h * stride_oh + i_r.to(tl.int64) * stride_ot
    tl.store(p_o + o_h, b_o.to(p_o.dtype.element_ty))


def _decode_fake(q, k_cache, v_cache, cache_lengths, scale):
    batch, heads, queries, size = q.shape
    return q.new_empty(batch, queries, heads, size).transpose(1, 2)


def _decode(q: Tensor, k_cache: Tensor, v_cache: Tensor, cache_lengths: Tensor, scale: float) -> Tensor:
    batch, heads, queries, size = q.shape
    slots = k_cache.shape[2]
    o = q.new_empty(batch, queries, heads, size).transpose(1, 2)
    if not o.numel():
        return o
    keys = decode_keys(q.dtype)
    splits = triton.cdiv(slots, keys)
    part_o = q.new_empty((batch * heads, splits, queries, size), dtype=accumulator(q))
    part_lse2 = q.new_empty((batch * heads, splits, queries), dtype=accumulator(q))
    lengths = cache_lengths.contiguous()
    constants = product_constants(q)
    with torch.cuda.device_of(q):
        attention_decode_part_kernel[(splits * triton.cdiv(queries, BQ) * batch * heads,)](
            q, k_cache, v_cache, lengths, part_o, part_lse2, scale * math.log2(math.e),
            *q.stride(), *k_cache.stride(), *v_cache.stride(), heads, queries, slots, splits,
            K=size, BQ=BQ, BS=keys, num_warps=decode_warps(q), num_stages=1, **constants, **LAUNCH,
        )  # fmt: skip
        attention_decode_combine_kernel[(queries * batch * heads,)](
            part_o, part_lse2, lengths, o, *o.stride()[:3], heads, queries, slots, splits,
            K=size, BS=keys, BLOCK=16, NEW=0, ACC=constants["ACC"], num_warps=4, num_stages=1, **LAUNCH,
        )  # fmt: skip
    return o


DECODE = register_op(
    "attention_decode(Tensor q, Tensor k_cache, Tensor v_cache, Tensor cache_lengths, float scale) -> Tensor",
    _decode,
    fake=_decode_fake,
)


def attention_decode_triton(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, cache_lengths: Tensor, *, scale: float
) -> Tensor:
    """As attention_decode_reference, but returns only o and has no gradient."""
    o: Tensor = DECODE(q, k_cache, v_cache, cache_lengths, scale)
    return o
