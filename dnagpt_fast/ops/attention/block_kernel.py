"""Attention backward of sequences that fit one tile: dQ, dK and dV of a head by one program, in one launch.

The equations are those of backward_kernels.py. With all queries and keys of a head in one tile the scores are made
once: 5 products instead of 7, and no delta in memory. Each element has one owner, so a run repeats bit for bit.
"""

import triton
import triton.language as tl

from dnagpt_fast.ops.attention.forward_kernel import attention_sequence_of, attention_visible
from dnagpt_fast.ops.triton_settings import COUNTS


@triton.jit(do_not_specialize=COUNTS)
def attention_block_backward_kernel(
    p_q, p_k, p_v, p_o, p_do, p_dlse, p_lse, p_dq, p_dk, p_dv, p_key_mask, p_start, p_end, scale, scale_log2,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_kt,
    stride_vb, stride_vh, stride_vt, stride_ob, stride_oh, stride_ot,
    stride_dob, stride_doh, stride_dot, stride_dqb, stride_dqh, stride_dqt,
    stride_dkb, stride_dkh, stride_dkt, stride_dvb, stride_dvh, stride_dvt, H, T,
    K: tl.constexpr, BT: tl.constexpr, CAUSAL: tl.constexpr, HAS_KEY_MASK: tl.constexpr,
    HAS_SEQUENCES: tl.constexpr, HAS_DLSE: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Grid: (B * H,). T is at most BT. p_lse, p_dlse (B, H, T), p_key_mask (B, T), p_start and p_end (T,); the others
    (B, H, T, K) by strides."""
    i_head = tl.program_id(0)
    i_b = (i_head // H).to(tl.int64)
    i_h = (i_head % H).to(tl.int64)
    o_t = tl.arange(0, BT)
    o_h = tl.arange(0, K)
    m_t = o_t < T
    mask = m_t[:, None]
    if HAS_KEY_MASK:
        p_key_mask += i_b * T
    o_row = i_head.to(tl.int64) * T + o_t

    # [BT, K]
    b_o = tl.load(
        p_o + i_b * stride_ob + i_h * stride_oh + o_t[:, None] * stride_ot + o_h[None, :],
        mask=mask,
        other=0.0,
    )
    p_do += i_b * stride_dob + i_h * stride_doh
    b_do = tl.load(p_do + o_t[:, None] * stride_dot + o_h[None, :], mask=mask, other=0.0)
    b_delta = tl.sum(b_o.to(ACC) * b_do.to(ACC), 1)
    if HAS_DLSE:
        b_delta -= tl.load(p_dlse + o_row, mask=m_t, other=0.0)
    # past the end 2^(s - inf) = 0: such a row has no weights
    b_lse2 = tl.load(p_lse + o_row, mask=m_t, other=float("inf")) * 1.4426950408889634
    if HAS_KEY_MASK or HAS_SEQUENCES:
        b_lse2 = tl.where(b_lse2 == float("-inf"), float("inf"), b_lse2)
    # [BT, K]
    p_q += i_b * stride_qb + i_h * stride_qh
    p_k += i_b * stride_kb + i_h * stride_kh
    b_q = tl.load(p_q + o_t[:, None] * stride_qt + o_h[None, :], mask=mask, other=0.0)
    b_k = tl.load(p_k + o_t[:, None] * stride_kt + o_h[None, :], mask=mask, other=0.0)
    # [BT queries, BT keys]
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION, out_dtype=ACC)
    b_start, b_end = attention_sequence_of(p_start, p_end, o_t, m_t, T, HAS_SEQUENCES)
    m_seen = attention_visible(
        o_t[:, None], o_t[None, :], b_start[:, None], b_end[:, None], p_key_mask, T,
        True, CAUSAL, HAS_KEY_MASK, HAS_SEQUENCES,
    )  # fmt: skip
    b_p = tl.where(m_seen, tl.exp2(b_s * scale_log2 - b_lse2[:, None]), 0.0)
    # [BT, K]
    b_dv = tl.dot(tl.trans(b_p.to(b_do.dtype)), b_do, input_precision=PRECISION, out_dtype=ACC)
    p_dv += i_b * stride_dvb + i_h * stride_dvh
    tl.store(p_dv + o_t[:, None] * stride_dvt + o_h[None, :], b_dv.to(p_dv.dtype.element_ty), mask=mask)
    p_v += i_b * stride_vb + i_h * stride_vh
    b_v = tl.load(p_v + o_t[:, None] * stride_vt + o_h[None, :], mask=mask, other=0.0)
    # [BT queries, BT keys]
    b_dp = tl.dot(b_do, tl.trans(b_v), input_precision=PRECISION, out_dtype=ACC)
    b_ds = (b_p * (b_dp - b_delta[:, None])).to(b_k.dtype)
    # [BT, K]
    b_dq = tl.dot(b_ds, b_k, input_precision=PRECISION, out_dtype=ACC)
    p_dq += i_b * stride_dqb + i_h * stride_dqh
    tl.store(
        p_dq + o_t[:, None] * stride_dqt + o_h[None, :], (b_dq * scale).to(p_dq.dtype.element_ty), mask=mask
    )
    b_dk = tl.dot(tl.trans(b_ds), b_q, input_precision=PRECISION, out_dtype=ACC)
    p_dk += i_b * stride_dkb + i_h * stride_dkh
    tl.store(
        p_dk + o_t[:, None] * stride_dkt + o_h[None, :], (b_dk * scale).to(p_dk.dtype.element_ty), mask=mask
    )
