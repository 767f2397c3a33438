"""Attention backward in two passes without atomics, so that the same input gives the same bits.

With p_ij = exp(scale q_i . k_j - lse_i) recomputed, delta_i = o_i . do_i and dlse the gradient of lse
(FlashAttention-2, Dao 2023):

    dv_j = sum_i p_ij do_i               ds_ij = p_ij (do_i . v_j - delta_i + dlse_i)
    dq_i = scale sum_j ds_ij k_j         dk_j  = scale sum_i ds_ij q_i

The dQ pass holds a tile of queries and reads the keys tile by tile; it comes first because it also computes
delta - dlse, one float per row. The dK/dV pass holds a tile of keys and reads the queries tile by tile. Both recompute
the scores: 7 products instead of 5, but no fp32 buffer for dQ and no sum whose order depends on timing.
"""

import triton
import triton.language as tl

from dnagpt_fast.ops.attention.forward_kernel import (
    attention_load_keys,
    attention_sequence_of,
    attention_tile_range,
    attention_visible,
)
from dnagpt_fast.ops.triton_settings import COUNTS


@triton.jit
def attention_dq_over_keys(
    b_dq, b_q, b_do, b_lse2, b_delta, p_k, p_v, stride_kt, stride_vt,
    p_key_mask, o_t, b_start, b_end, i_from, i_to, scale_log2,
    K: tl.constexpr, BS: tl.constexpr, EDGE: tl.constexpr, CAUSAL: tl.constexpr, HAS_KEY_MASK: tl.constexpr,
    HAS_SEQUENCES: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    o_j = tl.arange(0, BS)
    o_h = tl.arange(0, K)
    p_kt = p_k + o_h[:, None] + o_j[None, :] * stride_kt
    p_vt = p_v + o_h[:, None] + o_j[None, :] * stride_vt
    for i_s in tl.range(i_from, i_to, BS):
        i_s = tl.multiple_of(i_s, BS) if not HAS_SEQUENCES else i_s
        o_s = i_s + o_j
        # [K, BS]
        b_k = attention_load_keys(p_kt, stride_kt, i_s, o_s[None, :] < i_to, EDGE)
        b_v = attention_load_keys(p_vt, stride_vt, i_s, o_s[None, :] < i_to, EDGE)
        # [BT, BS]
        b_s = tl.dot(b_q, b_k, input_precision=PRECISION, out_dtype=ACC)
        b_p = tl.exp2(b_s * scale_log2 - b_lse2[:, None])
        if EDGE or HAS_KEY_MASK:
            m_seen = attention_visible(
                o_t[:, None], o_s[None, :], b_start[:, None], b_end[:, None], p_key_mask, i_to,
                EDGE, CAUSAL, HAS_KEY_MASK, HAS_SEQUENCES,
            )  # fmt: skip
            b_p = tl.where(m_seen, b_p, 0.0)
        # [BT, BS]
        b_dp = tl.dot(b_do, b_v, input_precision=PRECISION, out_dtype=ACC)
        b_ds = (b_p * (b_dp - b_delta[:, None])).to(b_k.dtype)
        # [BT, K]
        b_dq = tl.dot(b_ds, tl.trans(b_k), b_dq, input_precision=PRECISION, out_dtype=ACC)
    return b_dq


@triton.jit(do_not_specialize=COUNTS)
def attention_dq_kernel(
    p_q, p_k, p_v, p_o, p_do, p_dlse, p_lse, p_dq, p_delta, p_key_mask, p_start, p_end, scale, scale_log2,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_kt,
    stride_vb, stride_vh, stride_vt, stride_ob, stride_oh, stride_ot,
    stride_dob, stride_doh, stride_dot, stride_dqb, stride_dqh, stride_dqt, H, T,
    K: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr, CAUSAL: tl.constexpr, HAS_KEY_MASK: tl.constexpr,
    HAS_SEQUENCES: tl.constexpr, HAS_DLSE: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dQ and delta - dlse of BT queries of one head. Grid and shapes as in the forward; p_delta, p_dlse (B, H, T)."""
    tiles = tl.cdiv(T, BT)
    i_head = tl.program_id(0) // tiles
    i_t = (tiles - 1 - tl.program_id(0) % tiles) * BT
    i_b = (i_head // H).to(tl.int64)
    i_h = (i_head % H).to(tl.int64)
    i_t64 = i_t.to(tl.int64)
    o_i = tl.arange(0, BT)
    o_t = i_t + o_i
    o_h = tl.arange(0, K)
    m_t = o_t < T

    p_q += i_b * stride_qb + i_h * stride_qh + i_t64 * stride_qt
    p_o += i_b * stride_ob + i_h * stride_oh + i_t64 * stride_ot
    p_do += i_b * stride_dob + i_h * stride_doh + i_t64 * stride_dot
    p_k += i_b * stride_kb + i_h * stride_kh
    p_v += i_b * stride_vb + i_h * stride_vh
    if HAS_KEY_MASK:
        p_key_mask += i_b * T
    o_row = i_head.to(tl.int64) * T + o_t
    # [BT, K]
    b_o = tl.load(p_o + o_i[:, None] * stride_ot + o_h[None, :], mask=m_t[:, None], other=0.0)
    b_do = tl.load(p_do + o_i[:, None] * stride_dot + o_h[None, :], mask=m_t[:, None], other=0.0)
    b_delta = tl.sum(b_o.to(ACC) * b_do.to(ACC), 1)
    if HAS_DLSE:
        b_delta -= tl.load(p_dlse + o_row, mask=m_t, other=0.0)
    tl.store(p_delta + o_row, b_delta, mask=m_t)
    # [BT, K]
    b_q = tl.load(p_q + o_i[:, None] * stride_qt + o_h[None, :], mask=m_t[:, None], other=0.0)
    # past the end 2^(s - inf) = 0: such a row has no weights
    b_lse2 = tl.load(p_lse + o_row, mask=m_t, other=float("inf")) * 1.4426950408889634
    if HAS_KEY_MASK or HAS_SEQUENCES:
        b_lse2 = tl.where(b_lse2 == float("-inf"), float("inf"), b_lse2)

    i_first, i_open, i_last = attention_tile_range(p_start, p_end, i_t, T, BT, BS, CAUSAL, HAS_SEQUENCES)
    b_start, b_end = attention_sequence_of(p_start, p_end, o_t, m_t, T, HAS_SEQUENCES)
    b_dq = tl.zeros([BT, K], dtype=ACC)
    b_dq = attention_dq_over_keys(
        b_dq, b_q, b_do, b_lse2, b_delta, p_k, p_v, stride_kt, stride_vt,
        p_key_mask, o_t, b_start, b_end, i_first, i_open, scale_log2,
        K, BS, False, CAUSAL, HAS_KEY_MASK, HAS_SEQUENCES, PRECISION, ACC,
    )  # fmt: skip
    b_dq = attention_dq_over_keys(
        b_dq, b_q, b_do, b_lse2, b_delta, p_k, p_v, stride_kt, stride_vt,
        p_key_mask, o_t, b_start, b_end, i_open, i_last, scale_log2,
        K, BS, True, CAUSAL, HAS_KEY_MASK, HAS_SEQUENCES, PRECISION, ACC,
    )  # fmt: skip
    p_dq += i_b * stride_dqb + i_h * stride_dqh + i_t64 * stride_dqt
    # [BT, K]
    p_dq_tile = p_dq + o_i[:, None] * stride_dqt + o_h[None, :]
    tl.store(p_dq_tile, (b_dq * scale).to(p_dq.dtype.element_ty), mask=m_t[:, None])


@triton.jit
def attention_dkdv_over_queries(
    b_dk, b_dv, b_k, b_v, p_q, p_do, stride_qt, stride_dot,
    p_lse, p_delta, p_start, p_end, o_s, m_s, i_from, i_to, T, scale_log2,
    K: tl.constexpr, BT: tl.constexpr, EDGE: tl.constexpr, CAUSAL: tl.constexpr, MAY_BE_EMPTY: tl.constexpr,
    HAS_SEQUENCES: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    o_i = tl.arange(0, BT)
    o_h = tl.arange(0, K)
    p_qt = p_q + o_h[:, None] + o_i[None, :] * stride_qt
    p_dot = p_do + o_i[:, None] * stride_dot + o_h[None, :]
    for i_t in tl.range(i_from, i_to, BT):
        o_t = i_t + o_i
        m_t = o_t < i_to
        # [K, BT]
        b_q = tl.load(p_qt + tl.cast(i_t, tl.int64) * stride_qt, mask=m_t[None, :], other=0.0)
        # [BT]; past the end 2^(s - inf) = 0
        b_lse2 = tl.load(p_lse + o_t, mask=m_t, other=float("inf")) * 1.4426950408889634
        if MAY_BE_EMPTY:
            b_lse2 = tl.where(b_lse2 == float("-inf"), float("inf"), b_lse2)
        # [BS, BT]
        b_s = tl.dot(b_k, b_q, input_precision=PRECISION, out_dtype=ACC)
        b_p = tl.exp2(b_s * scale_log2 - b_lse2[None, :])
        if EDGE:
            m_seen = m_s[:, None]
            if CAUSAL:
                m_seen = m_seen & (o_t[None, :] >= o_s[:, None])
            if HAS_SEQUENCES:
                b_start = tl.load(p_start + o_t, mask=m_t, other=T)
                m_seen = m_seen & (b_start[None, :] <= o_s[:, None])
                if not CAUSAL:
                    b_end = tl.load(p_end + o_t, mask=m_t, other=0)
                    m_seen = m_seen & (b_end[None, :] > o_s[:, None])
            b_p = tl.where(m_seen, b_p, 0.0)
        # [BT, K]
        b_do = tl.load(p_dot + tl.cast(i_t, tl.int64) * stride_dot, mask=m_t[:, None], other=0.0)
        # [BS, K]
        b_dv = tl.dot(b_p.to(b_do.dtype), b_do, b_dv, input_precision=PRECISION, out_dtype=ACC)
        b_delta = tl.load(p_delta + o_t, mask=m_t, other=0.0)
        # [BS, BT]
        b_dp = tl.dot(b_v, tl.trans(b_do), input_precision=PRECISION, out_dtype=ACC)
        b_ds = (b_p * (b_dp - b_delta[None, :])).to(b_q.dtype)
        # [BS, K]
        b_dk = tl.dot(b_ds, tl.trans(b_q), b_dk, input_precision=PRECISION, out_dtype=ACC)
    return b_dk, b_dv


@triton.jit(do_not_specialize=COUNTS)
def attention_dkdv_kernel(
    p_q, p_k, p_v, p_do, p_lse, p_delta, p_dk, p_dv, p_key_mask, p_start, p_end, scale, scale_log2,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_kt,
    stride_vb, stride_vh, stride_vt, stride_dob, stride_doh, stride_dot,
    stride_dkb, stride_dkh, stride_dkt, stride_dvb, stride_dvh, stride_dvt, H, T,
    K: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr, CAUSAL: tl.constexpr, HAS_KEY_MASK: tl.constexpr,
    HAS_SEQUENCES: tl.constexpr, WGMMA: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dK and dV of BS keys of one head. Grid: (tiles * B * H,), the first keys (which most queries see) first.

    Shapes as in the forward and in the dQ pass.
    """
    tiles = tl.cdiv(T, BS)
    i_head = tl.program_id(0) // tiles
    i_s = (tl.program_id(0) % tiles) * BS
    i_b = (i_head // H).to(tl.int64)
    i_h = (i_head % H).to(tl.int64)
    i_s64 = i_s.to(tl.int64)
    o_j = tl.arange(0, BS)
    o_s = i_s + o_j
    o_h = tl.arange(0, K)
    m_s = o_s < T

    p_q += i_b * stride_qb + i_h * stride_qh
    p_do += i_b * stride_dob + i_h * stride_doh
    p_k += i_b * stride_kb + i_h * stride_kh + i_s64 * stride_kt
    p_v += i_b * stride_vb + i_h * stride_vh + i_s64 * stride_vt
    p_lse += i_head.to(tl.int64) * T
    p_delta += i_head.to(tl.int64) * T
    # [BS, K]
    b_k = tl.load(p_k + o_j[:, None] * stride_kt + o_h[None, :], mask=m_s[:, None], other=0.0)
    b_v = tl.load(p_v + o_j[:, None] * stride_vt + o_h[None, :], mask=m_s[:, None], other=0.0)

    # queries i_first .. i_open see only some of the keys; i_open .. i_last see all of them
    if HAS_SEQUENCES:
        # a key past the end repeats the last one, so that it changes no bound
        o_clamped = tl.minimum(o_s, T - 1)
        b_start = tl.load(p_start + o_clamped)
        i_first = tl.min(b_start, 0)
        one_sequence = tl.max(b_start, 0) == i_first
        i_last = tl.max(tl.load(p_end + o_clamped), 0)
    else:
        i_first = 0
        one_sequence = True
        i_last = T
    if CAUSAL:
        i_first = tl.maximum(i_first, i_s)
        i_open = i_first + tl.cdiv(BS, BT) * BT
    else:
        i_open = i_first
    i_open = tl.where(one_sequence, tl.minimum(i_open, i_last), i_last)
    if WGMMA and CAUSAL and not HAS_SEQUENCES and p_q.dtype.element_ty.primitive_bitwidth == 16:
        # The first loop below runs at least once. Where ptxas cannot know that, it serialises all wgmma (C7515). On
        # other cards the knowledge costs registers.
        tl.assume(i_open > i_first)
    b_dk = tl.zeros([BS, K], dtype=ACC)
    b_dv = tl.zeros([BS, K], dtype=ACC)
    if CAUSAL or HAS_SEQUENCES:
        b_dk, b_dv = attention_dkdv_over_queries(
            b_dk, b_dv, b_k, b_v, p_q, p_do, stride_qt, stride_dot,
            p_lse, p_delta, p_start, p_end, o_s, m_s, i_first, i_open, T, scale_log2,
            K, BT, True, CAUSAL, HAS_KEY_MASK or HAS_SEQUENCES, HAS_SEQUENCES, PRECISION, ACC,
        )  # fmt: skip
    b_dk, b_dv = attention_dkdv_over_queries(
        b_dk, b_dv, b_k, b_v, p_q, p_do, stride_qt, stride_dot,
        p_lse, p_delta, p_start, p_end, o_s, m_s, i_open, i_last, T, scale_log2,
        K, BT, False, CAUSAL, HAS_KEY_MASK or HAS_SEQUENCES, HAS_SEQUENCES, PRECISION, ACC,
    )  # fmt: skip
    if HAS_KEY_MASK:
        # a masked key has no weight anywhere, so its own two rows are all that its mask changes
        m_key = tl.load(p_key_mask + i_b * T + o_s, mask=m_s, other=0) != 0
        b_dk = tl.where(m_key[:, None], b_dk, 0.0)
        b_dv = tl.where(m_key[:, None], b_dv, 0.0)
    p_dk += i_b * stride_dkb + i_h * stride_dkh + i_s64 * stride_dkt
    p_dv += i_b * stride_dvb + i_h * stride_dvh + i_s64 * stride_dvt
    # [BS, K]
    p_dk_tile = p_dk + o_j[:, None] * stride_dkt + o_h[None, :]
    p_dv_tile = p_dv + o_j[:, None] * stride_dvt + o_h[None, :]
    tl.store(p_dk_tile, (b_dk * scale).to(p_dk.dtype.element_ty), mask=m_s[:, None])
    tl.store(p_dv_tile, b_dv.to(p_dv.dtype.element_ty), mask=m_s[:, None])
