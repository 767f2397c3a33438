"""Backward kernels of the combined loss: the tiles of a chunk of rows are recomputed once, then read for dX and dW.

combined_loss_dz_kernel   recomputes a tile of logits from lse and writes its gradient into the chunk's workspace
combined_loss_dx_kernel   dX = dz W of a row tile and a slice of D, over the vocabulary
combined_loss_dw_kernel   dW += dz^T x of a vocabulary tile and a slice of D, over the chunk's rows; db from the same
One program computes each output in a fixed order: no atomics, no locks, the same bits each time. The (R, V) logits
never exist: docs/combined_loss.md shows why the tiles are recomputed once per chunk and not once per pass.
"""

import triton
import triton.language as tl

from dnagpt_fast.ops.combined_loss.forward_kernels import (
    BASES,
    entries_of,
    load_columns,
    logits_tile,
    paid_by_base,
    row_facts,
    same_base,
)
from dnagpt_fast.ops.triton_settings import COUNTS


@triton.jit
def base_pull(
    p_base_pull,  # (R, BASES)
    b_place,  # [BT]
    i_row,  # [BT]
    m_counted,  # [BT]
    i_v,  # [BV]
    first,  # the tile's first place
    K: tl.constexpr,
    BT: tl.constexpr,
    BV: tl.constexpr,
):
    """[BT, BV]: the multiple of its probability by which the base-level loss raises each plain k-mer; 0 for others."""
    b_pull = tl.zeros((BT, BV), dtype=p_base_pull.dtype.element_ty)
    for i in tl.static_range(K):
        b_mine = tl.load(p_base_pull + i_row.to(tl.int64) * BASES + i, mask=m_counted, other=0.0)
        if (1 << (2 * (K - 1 - i))) >= BV:  # all k-mers of the tile have one base there
            m_same = ((b_place >> (2 * (K - 1 - i))) & 3) == ((first >> (2 * (K - 1 - i))) & 3)
            b_pull += tl.where(m_same, b_mine, 0.0)[:, None]
        else:
            b_pull += tl.where(same_base(b_place, i_v, 2 * (K - 1 - i)), b_mine[:, None], 0.0)
    return tl.where((i_v < (1 << (2 * K)))[None, :], b_pull, 0.0)


@triton.jit(do_not_specialize=COUNTS)
def combined_loss_dz_kernel(
    p_x,  # (R, D)
    p_w,  # (V, D)
    p_b,  # (V,)
    p_targets,  # (R,)
    p_kind,  # (R,)
    p_order,  # (V,)
    p_place,  # (V,)
    p_lse,  # (R,)
    p_base_pull,  # (R, BASES)
    p_scales,  # (2,)
    p_row_grad,  # (R,), or ()
    p_keep,  # (row tiles, tiles / NARROW)
    p_dz,  # (rows of the chunk, tiles * BV)
    R,
    V,
    D,
    ignore_index,
    label_smoothing,
    z_loss,
    base_level,
    soft_cap,
    rest,
    log_rest,
    entries,
    first_row,
    tiles,
    HAS_BIAS: tl.constexpr,
    HAS_KIND: tl.constexpr,
    PER_ROW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    SMOOTH: tl.constexpr,
    SKIP: tl.constexpr,
    REST: tl.constexpr,
    K: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
    EVEN_D: tl.constexpr,
    BT: tl.constexpr,
    BV: tl.constexpr,
    BD: tl.constexpr,
    NARROW: tl.constexpr,  # of these tiles in one of the passes that read dz
):
    i_tile = tl.program_id(1)
    i_here = tl.program_id(0) * BT + tl.arange(0, BT)
    i_row = first_row + i_here
    m_row = i_row < R
    if SKIP:
        p_kept = p_keep + (first_row // BT + tl.program_id(0)) * (tiles // NARROW) + i_tile // NARROW
        if tl.load(p_kept) == 0:
            return  # neither pass reads this tile
    i_v = i_tile * BV + tl.arange(0, BV)
    m_v = i_v < V
    p_out = p_dz + i_here.to(tl.int64)[:, None] * (tiles * BV) + i_v[None, :]
    b_place, m_counted, m_order = row_facts(
        p_targets, p_kind, p_place, i_row, m_row, V, ignore_index, HAS_KIND
    )
    if tl.max(m_counted.to(tl.int32)) == 0:
        tl.store(p_out, tl.zeros((BT, BV), dtype=p_dz.dtype.element_ty))
        return
    b_z, b_u = logits_tile(
        p_x, p_w, p_b, p_order, tl.where(m_row, i_row, 0), i_v, V, D, soft_cap,
        HAS_BIAS, SOFT_CAP, PRECISION, ACC, EVEN_D, BT, BV, BD,
    )  # fmt: skip
    if REST:
        b_z += tl.where(i_v == V - 1, log_rest, 0.0)[None, :]
    b_lse = tl.load(p_lse + i_row, mask=m_counted, other=0.0)
    b_shift = tl.where(m_counted, b_lse, float("inf"))  # p = 0 in the rows that do not count
    b_g = tl.exp(b_z - b_shift[:, None])
    b_factor = 1.0 + 2.0 * z_loss * b_lse
    b_hit = tl.full((BT,), 1.0, dtype=ACC) - label_smoothing
    if K:
        m_base = paid_by_base(b_place, m_counted, m_order, K)
        b_hit = tl.where(m_base, 1.0 - base_level, b_hit)
        if i_tile * BV < (1 << (2 * K)):
            b_g *= b_factor[:, None] - base_pull(
                p_base_pull, b_place, i_row, m_counted, i_v, i_tile * BV, K, BT, BV
            )
        else:
            b_g *= b_factor[:, None]
    else:
        b_g *= b_factor[:, None]
    if SMOOTH:
        b_g -= (label_smoothing / entries) * entries_of(i_v, V, rest, REST)[None, :]
    # p - 1 in ACC, from the logit itself: the true class keeps its digits where p is near 1
    b_g -= tl.where(i_v[None, :] == b_place[:, None], b_hit[:, None], 0.0)
    if SOFT_CAP:
        b_g *= 1.0 - b_u * b_u
    if PER_ROW:
        b_scale = tl.load(p_row_grad + i_row, mask=m_row, other=0.0).to(ACC)
    else:
        b_scale = tl.where(m_order, tl.load(p_scales + 1), 1.0)
    b_scale = tl.where(b_place >= 0, b_scale, float("nan"))
    b_g = tl.where(m_counted[:, None] & m_v[None, :], b_g * b_scale[:, None], 0.0)
    tl.store(p_out, b_g.to(p_dz.dtype.element_ty))


@triton.jit(do_not_specialize=COUNTS)
def combined_loss_dx_kernel(
    p_dz,  # (rows of the chunk, tiles * BV)
    p_w,  # (V, D)
    p_order,  # (V,)
    p_scales,  # (2,)
    p_grad,  # (), or (R,)
    p_keep,  # (row tiles, tiles)
    p_dx,  # (R, D)
    R,
    V,
    D,
    first_row,
    tiles,
    PER_ROW: tl.constexpr,
    SKIP: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
    EVEN_D: tl.constexpr,
    BT: tl.constexpr,
    BV: tl.constexpr,
    BD: tl.constexpr,
    BS: tl.constexpr,
):
    i_here = tl.program_id(0) * BT + tl.arange(0, BT)
    i_row = first_row + i_here
    i_d = tl.program_id(1) * BD + tl.arange(0, BD)
    m_d = i_d < D
    b_dx = tl.zeros((BT, BD), dtype=ACC)
    p_rows = p_dz + i_here.to(tl.int64)[:, None] * (tiles * BV)
    p_kept = p_keep
    if SKIP:
        p_kept = p_keep + (first_row // BT + tl.program_id(0)) * tiles
    for i_step in range(0, tiles * (BV // BS)):  # BS entries of the vocabulary at a time
        kept = True
        if SKIP:
            kept = tl.load(p_kept + i_step // (BV // BS)) != 0
        if kept:
            i_v = i_step * BS + tl.arange(0, BS)
            b_token = tl.load(p_order + i_v, mask=i_v < V, other=0).to(tl.int64)
            b_dz = tl.load(p_rows + i_v[None, :])
            b_w = load_columns(p_w + b_token[:, None] * D + i_d[None, :], m_d, EVEN_D)
            # [BT, BS] x [BS, BD]
            b_dx = tl.dot(b_dz, b_w, b_dx, input_precision=PRECISION, out_dtype=ACC)
    if not PER_ROW:
        b_dx *= tl.load(p_scales) * tl.load(p_grad).to(ACC)
    p_out = p_dx + i_row.to(tl.int64)[:, None] * D + i_d[None, :]
    tl.store(p_out, b_dx.to(p_dx.dtype.element_ty), mask=(i_row < R)[:, None] & m_d[None, :])


@triton.jit(do_not_specialize=COUNTS)
def combined_loss_dw_kernel(
    p_dz,  # (rows of the chunk, tiles * BV)
    p_x,  # (R, D)
    p_order,  # (V,)
    p_scales,  # (2,)
    p_grad,  # (), or (R,)
    p_keep,  # (row tiles, tiles)
    p_sum,  # (V, D)
    p_bias_sum,  # (V,)
    p_dw,  # (V, D)
    p_db,  # (V,)
    R,
    V,
    D,
    first_row,
    row_tiles,
    tiles,
    PER_ROW: tl.constexpr,
    SKIP: tl.constexpr,
    WANT_WEIGHT: tl.constexpr,
    WANT_BIAS: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
    EVEN_D: tl.constexpr,
    BT: tl.constexpr,
    BV: tl.constexpr,
    BD: tl.constexpr,
    BS: tl.constexpr,
):
    i_tile = tl.program_id(0)
    i_v = i_tile * BV + tl.arange(0, BV)
    m_v = i_v < V
    i_d = tl.program_id(1) * BD + tl.arange(0, BD)
    m_d = i_d < D
    b_token = tl.load(p_order + i_v, mask=m_v, other=0).to(tl.int64)
    scale = 1.0
    if LAST and not PER_ROW:
        scale = tl.load(p_scales) * tl.load(p_grad).to(ACC)
    if WANT_WEIGHT:
        b_dw = tl.zeros((BV, BD), dtype=ACC)
        for i_step in range(0, row_tiles * (BT // BS)):  # BS rows at a time
            kept = True
            if SKIP:
                kept = tl.load(p_keep + (first_row // BT + i_step // (BT // BS)) * tiles + i_tile) != 0
            if kept:
                i_here = i_step * BS + tl.arange(0, BS)
                i_row = first_row + i_here
                i_read = tl.where(i_row < R, i_row, 0).to(tl.int64)  # dz is 0 in the rows past the last
                b_dz = tl.load(p_dz + i_here.to(tl.int64)[:, None] * (tiles * BV) + i_v[None, :])
                b_x = load_columns(p_x + i_read[:, None] * D + i_d[None, :], m_d, EVEN_D)
                # [BV, BS] x [BS, BD]
                b_dw = tl.dot(tl.trans(b_dz), b_x, b_dw, input_precision=PRECISION, out_dtype=ACC)
        o_w = b_token[:, None] * D + i_d[None, :]
        m_w = m_v[:, None] & m_d[None, :]
        if not FIRST:
            b_dw += tl.load(p_sum + o_w, mask=m_w, other=0.0)
        if LAST:
            tl.store(p_dw + o_w, (b_dw * scale).to(p_dw.dtype.element_ty), mask=m_w)
        else:
            tl.store(p_sum + o_w, b_dw, mask=m_w)
    if WANT_BIAS and tl.program_id(1) == 0:
        b_db = tl.zeros((BV,), dtype=ACC)
        for i_step in range(0, row_tiles * (BT // BS)):
            kept = True
            if SKIP:
                kept = tl.load(p_keep + (first_row // BT + i_step // (BT // BS)) * tiles + i_tile) != 0
            if kept:
                i_here = i_step * BS + tl.arange(0, BS)
                b_dz = tl.load(p_dz + i_here.to(tl.int64)[:, None] * (tiles * BV) + i_v[None, :])
                b_db += tl.sum(b_dz.to(ACC), 0)
        if not FIRST:
            b_db += tl.load(p_bias_sum + b_token, mask=m_v, other=0.0)
        if LAST:
            tl.store(p_db + b_token, (b_db * scale).to(p_db.dtype.element_ty), mask=m_v)
        else:
            tl.store(p_bias_sum + b_token, b_db, mask=m_v)
