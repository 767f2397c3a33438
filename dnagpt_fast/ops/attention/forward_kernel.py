"""Attention forward: a program holds a tile of queries, reads the keys tile by tile and updates the softmax.

Online softmax (Milakov and Gimelshein 2018; FlashAttention-2, Dao 2023) in base 2: with c = scale * log2(e),
p = 2^(c s - m): one fused multiply-add applies the scale and subtracts the maximum.

Tiles: BT queries by BS keys, K the head size. Keys that every query of the tile sees come first and need no mask; the
other keys (the diagonal, the end of a sequence) follow.
"""

import triton
import triton.language as tl

from dnagpt_fast.ops.triton_settings import COUNTS


@triton.jit
def attention_tile_range(
    p_start, p_end, i_t, T, BT: tl.constexpr, BS: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_SEQUENCES: tl.constexpr,
):  # fmt: skip
    """Keys of the queries i_t .. i_t + BT: first, end of those that every query sees (a whole number of BS), end."""
    if HAS_SEQUENCES:
        # a row past the end repeats the last one, so that it changes neither bound
        o_t = tl.minimum(i_t + tl.arange(0, BT), T - 1)
        b_start = tl.load(p_start + o_t)
        i_first = tl.min(b_start, 0)
        one_sequence = tl.max(b_start, 0) == i_first
        i_last = tl.max(tl.load(p_end + o_t), 0)
    else:
        i_first = 0
        one_sequence = True
        i_last = T
    if CAUSAL:
        i_open = i_t
        i_last = tl.minimum(i_last, i_t + BT)
    else:
        i_open = i_last
    i_open = tl.where(one_sequence, i_first + tl.maximum(i_open - i_first, 0) // BS * BS, i_first)
    return i_first, i_open, i_last


@triton.jit
def attention_visible(
    o_t, o_s, b_start, b_end, p_key_mask, i_last,
    EDGE: tl.constexpr, CAUSAL: tl.constexpr, HAS_KEY_MASK: tl.constexpr, HAS_SEQUENCES: tl.constexpr,
):  # fmt: skip
    """Which keys o_s the queries o_t see; o_t (and b_start, b_end) and o_s are along different axes."""
    m_seen = o_s < i_last
    if EDGE:
        if CAUSAL:
            m_seen = m_seen & (o_t >= o_s)
        elif HAS_SEQUENCES:
            m_seen = m_seen & (o_s < b_end)
        if HAS_SEQUENCES:
            m_seen = m_seen & (o_s >= b_start)
    if HAS_KEY_MASK:
        m_seen = m_seen & (tl.load(p_key_mask + o_s, mask=o_s < i_last, other=0) != 0)
    return m_seen


@triton.jit
def attention_sequence_of(p_start, p_end, o_t, m_t, T, HAS_SEQUENCES: tl.constexpr):
    """First token of each query's sequence and the one after its last; T and 0 past the end. Unused without them."""
    if HAS_SEQUENCES:
        b_start = tl.load(p_start + o_t, mask=m_t, other=T)
        b_end = tl.load(p_end + o_t, mask=m_t, other=0)
    else:
        b_start = o_t
        b_end = o_t
    return b_start, b_end


@triton.jit
def attention_load_keys(p_tile, stride_t, i_s, m_s, EDGE: tl.constexpr):
    """A tile of keys or values from i_s on; m_s, read only with EDGE: those before the last, along the tile's axis."""
    p_here = p_tile + tl.cast(i_s, tl.int64) * stride_t
    if EDGE:
        b_tile = tl.load(p_here, mask=m_s, other=0.0)
    else:
        b_tile = tl.load(p_here)
    return b_tile


@triton.jit
def attention_forward_over_keys(
    b_o, b_m, b_l, b_q, p_k, p_v, i_b, i_h, stride_kt, stride_vt,
    p_key_mask, o_t, b_start, b_end, i_from, i_to, scale_log2,
    K: tl.constexpr, BS: tl.constexpr, EDGE: tl.constexpr, CAUSAL: tl.constexpr, HAS_KEY_MASK: tl.constexpr,
    HAS_SEQUENCES: tl.constexpr, PRECISION: tl.constexpr, SPECIALIZE: tl.constexpr, TMA: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """p_k and p_v point at the head's first key, or with TMA are descriptors of the whole (B, H, T, K) tensors."""
    o_j = tl.arange(0, BS)
    o_h = tl.arange(0, K)
    if not TMA:
        p_kt = p_k + o_h[:, None] + o_j[None, :] * stride_kt
        p_vt = p_v + o_j[:, None] * stride_vt + o_h[None, :]
    for i_s in tl.range(i_from, i_to, BS, warp_specialize=SPECIALIZE):
        i_s = tl.multiple_of(i_s, BS) if not HAS_SEQUENCES else i_s
        o_s = i_s + o_j
        if TMA:
            # [K, BS]
            b_k = tl.trans(p_k.load([i_b, i_h, i_s, 0]).reshape(BS, K))
        else:
            # [K, BS]
            b_k = attention_load_keys(p_kt, stride_kt, i_s, o_s[None, :] < i_to, EDGE)
        # [BT, BS]
        b_s = tl.dot(b_q, b_k, input_precision=PRECISION, out_dtype=ACC)
        if EDGE or HAS_KEY_MASK:
            m_seen = attention_visible(
                o_t[:, None], o_s[None, :], b_start[:, None], b_end[:, None], p_key_mask, i_to,
                EDGE, CAUSAL, HAS_KEY_MASK, HAS_SEQUENCES,
            )  # fmt: skip
            b_s = tl.where(m_seen, b_s, float("-inf"))
        b_m_next = tl.maximum(b_m, tl.max(b_s, 1) * scale_log2)
        if HAS_KEY_MASK or HAS_SEQUENCES:
            # a row that has seen no key yet: -inf - -inf is not a number
            b_shift = tl.where(b_m_next == float("-inf"), 0.0, b_m_next)
        else:
            b_shift = b_m_next
        b_p = tl.exp2(b_s * scale_log2 - b_shift[:, None])
        b_fade = tl.exp2(b_m - b_shift)
        b_l = b_l * b_fade + tl.sum(b_p, 1)
        b_o = b_o * b_fade[:, None]
        if TMA:
            # [BS, K]
            b_v = p_v.load([i_b, i_h, i_s, 0]).reshape(BS, K)
        else:
            # [BS, K]
            b_v = attention_load_keys(p_vt, stride_vt, i_s, o_s[:, None] < i_to, EDGE)
        # [BT, K]
        b_o = tl.dot(b_p.to(b_v.dtype), b_v, b_o, input_precision=PRECISION, out_dtype=ACC)
        b_m = b_m_next
    return b_o, b_m, b_l


@triton.jit(do_not_specialize=COUNTS)
def attention_forward_kernel(
    p_q, p_k, p_v, p_o, p_lse, p_key_mask, p_start, p_end, scale_log2,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_kt,
    stride_vb, stride_vh, stride_vt, stride_ob, stride_oh, stride_ot, H, T,
    K: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr, CAUSAL: tl.constexpr, HAS_KEY_MASK: tl.constexpr,
    HAS_SEQUENCES: tl.constexpr, PRECISION: tl.constexpr, SPECIALIZE: tl.constexpr, TMA: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """BT queries of one head. Grid: (tiles * B * H,), the tiles of a head side by side, longest first.

    p_q, p_k, p_v, p_o (B, H, T, K) by strides, p_lse (B, H, T), p_key_mask (B, T), p_start and p_end (T,).
    """
    tiles = tl.cdiv(T, BT)
    i_head = tl.program_id(0) // tiles
    i_t = (tiles - 1 - tl.program_id(0) % tiles) * BT
    i_b = (i_head // H).to(tl.int64)
    i_h = (i_head % H).to(tl.int64)
    o_t = i_t + tl.arange(0, BT)
    o_h = tl.arange(0, K)
    m_t = o_t < T

    p_q += i_b * stride_qb + i_h * stride_qh + tl.cast(i_t, tl.int64) * stride_qt
    if not TMA:
        p_k += i_b * stride_kb + i_h * stride_kh
        p_v += i_b * stride_vb + i_h * stride_vh
    if HAS_KEY_MASK:
        p_key_mask += i_b * T
    # [BT, K]
    p_q_tile = p_q + tl.arange(0, BT)[:, None] * stride_qt + o_h[None, :]
    b_q = tl.load(p_q_tile, mask=m_t[:, None], other=0.0)

    i_first, i_open, i_last = attention_tile_range(p_start, p_end, i_t, T, BT, BS, CAUSAL, HAS_SEQUENCES)
    b_start, b_end = attention_sequence_of(p_start, p_end, o_t, m_t, T, HAS_SEQUENCES)
    b_o = tl.zeros([BT, K], dtype=ACC)
    b_m = tl.full([BT], float("-inf"), dtype=ACC)
    b_l = tl.zeros([BT], dtype=ACC)
    b_o, b_m, b_l = attention_forward_over_keys(
        b_o, b_m, b_l, b_q, p_k, p_v, i_head // H, i_head % H, stride_kt, stride_vt,
        p_key_mask, o_t, b_start, b_end, i_first, i_open, scale_log2,
        K, BS, False, CAUSAL, HAS_KEY_MASK, HAS_SEQUENCES, PRECISION, SPECIALIZE, TMA, ACC,
    )  # fmt: skip
    b_o, b_m, b_l = attention_forward_over_keys(
        b_o, b_m, b_l, b_q, p_k, p_v, i_head // H, i_head % H, stride_kt, stride_vt,
        p_key_mask, o_t, b_start, b_end, i_open, i_last, scale_log2,
        K, BS, True, CAUSAL, HAS_KEY_MASK, HAS_SEQUENCES, PRECISION, SPECIALIZE, TMA, ACC,
    )  # fmt: skip

    if HAS_KEY_MASK or HAS_SEQUENCES:
        # no key seen: o = 0 / 1, lse = -inf + log 1
        b_l = tl.where(b_l == 0.0, 1.0, b_l)
    b_lse = (b_m + tl.log2(b_l)) * 0.6931471805599453
    tl.store(p_lse + i_head.to(tl.int64) * T + o_t, b_lse, mask=m_t)
    p_o += i_b * stride_ob + i_h * stride_oh + i_t.to(tl.int64) * stride_ot
    # [BT, K]
    p_o_tile = p_o + tl.arange(0, BT)[:, None] * stride_ot + o_h[None, :]
    tl.store(p_o_tile, (b_o / b_l[:, None]).to(p_o.dtype.element_ty), mask=m_t[:, None])
