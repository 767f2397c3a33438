"""Kernels of residual addition and LayerNorm: forward, backward, and the last sum of the weight's gradient.

residual_norm_forward_kernel   s = x + b, y = LayerNorm(s), mean and 1 / sqrt(var + eps) of each row
residual_norm_backward_kernel  ds + LayerNorm'(dy) of each row; each program sums its rows' part of dweight and dbias
residual_norm_sum_kernel       dweight and dbias: the sum over the programs
A program holds whole rows of the width D in registers, so a row is read once. With x^ = (s - mean) / std, w = weight:
    dx = (w dy - mean(w dy) - x^ mean(w dy x^)) / std + ds,     dweight = sum dy x^,     dbias = sum dy.
No atomics: the rows of a program and the order of all sums depend on the shape alone, so a run repeats bit for bit.
"""

import triton
import triton.language as tl

from dnagpt_fast.ops.triton_settings import COUNTS


@triton.jit(do_not_specialize=COUNTS)
def residual_norm_forward_kernel(
    p_x,  # (R, D)
    p_b,  # (R, D)
    p_weight,  # (D,)
    p_bias,  # (D,)
    p_s,  # (R, D)
    p_y,  # (R, D)
    p_mean,  # (R,)
    p_rstd,  # (R,)
    R,
    eps,
    D: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACC: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
):
    i_row = tl.program_id(0) * BT + tl.arange(0, BT)
    i_d = tl.arange(0, BD)
    m_row, m_d = i_row < R, i_d < D
    mask = m_row[:, None] & m_d[None, :]
    o = i_row.to(tl.int64)[:, None] * D + i_d[None, :]
    # [BT, BD]
    b_x = tl.load(p_x + o, mask=mask, other=0.0).to(ACC)
    b_b = tl.load(p_b + o, mask=mask, other=0.0).to(ACC)
    b_s = (b_x + b_b).to(p_s.dtype.element_ty)
    tl.store(p_s + o, b_s, mask=mask)
    b_s = b_s.to(ACC)  # rounded, as the backward pass reads it
    b_mean = tl.sum(b_s, 1) / D
    b_c = tl.where(m_d[None, :], b_s - b_mean[:, None], 0.0)
    b_rstd = 1.0 / tl.sqrt(tl.sum(b_c * b_c, 1) / D + eps)
    b_y = b_c * b_rstd[:, None] * tl.load(p_weight + i_d, mask=m_d, other=0.0).to(ACC)[None, :]
    if HAS_BIAS:
        b_y += tl.load(p_bias + i_d, mask=m_d, other=0.0).to(ACC)[None, :]
    tl.store(p_y + o, b_y.to(p_y.dtype.element_ty), mask=mask)
    tl.store(p_mean + i_row, b_mean, mask=m_row)
    tl.store(p_rstd + i_row, b_rstd, mask=m_row)


@triton.jit(do_not_specialize=COUNTS)
def residual_norm_backward_kernel(
    p_ds,  # (R, D): the gradient of s by its other uses
    p_dy,  # (R, D)
    p_s,  # (R, D)
    p_weight,  # (D,)
    p_mean,  # (R,)
    p_rstd,  # (R,)
    p_dx,  # (R, D)
    p_db,  # (R, D), in the branch's dtype
    p_dweight,  # (programs, D) in ACC
    p_dbias,  # (programs, D) in ACC
    R,
    D: tl.constexpr,
    HAS_DS: tl.constexpr,
    HAS_DB: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACC: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
):
    i_program = tl.program_id(0)
    i_d = tl.arange(0, BD)
    m_d = i_d < D
    b_w = tl.load(p_weight + i_d, mask=m_d, other=0.0).to(ACC)[None, :]
    b_dweight = tl.zeros((BT, BD), dtype=ACC)
    b_dbias = tl.zeros((BT, BD), dtype=ACC)
    for first in range(i_program * BT, R, tl.num_programs(0) * BT):
        i_row = first + tl.arange(0, BT)
        m_row = i_row < R
        mask = m_row[:, None] & m_d[None, :]
        o = i_row.to(tl.int64)[:, None] * D + i_d[None, :]
        # [BT, BD]; rows past R have dy = 0 and add nothing to the sums
        b_dy = tl.load(p_dy + o, mask=mask, other=0.0).to(ACC)
        b_s = tl.load(p_s + o, mask=mask, other=0.0).to(ACC)
        b_mean = tl.load(p_mean + i_row, mask=m_row, other=0.0)[:, None]
        b_rstd = tl.load(p_rstd + i_row, mask=m_row, other=0.0)[:, None]
        b_xhat = tl.where(m_d[None, :], (b_s - b_mean) * b_rstd, 0.0)
        b_dweight += b_dy * b_xhat
        if HAS_BIAS:
            b_dbias += b_dy
        b_dy *= b_w
        b_along = (tl.sum(b_dy * b_xhat, 1) / D)[:, None]
        b_level = (tl.sum(b_dy, 1) / D)[:, None]
        b_dx = (b_dy - b_xhat * b_along - b_level) * b_rstd
        if HAS_DS:
            b_dx += tl.load(p_ds + o, mask=mask, other=0.0).to(ACC)
        tl.store(p_dx + o, b_dx.to(p_dx.dtype.element_ty), mask=mask)
        if HAS_DB:
            tl.store(p_db + o, b_dx.to(p_db.dtype.element_ty), mask=mask)
    tl.store(p_dweight + i_program * D + i_d, tl.sum(b_dweight, 0), mask=m_d)
    if HAS_BIAS:
        tl.store(p_dbias + i_program * D + i_d, tl.sum(b_dbias, 0), mask=m_d)


@triton.jit(do_not_specialize=COUNTS)
def residual_norm_sum_kernel(
    p_part,  # (parts, D) in ACC
    p_sum,  # (D,)
    parts,
    D: tl.constexpr,
    ACC: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
):
    i_d = tl.program_id(0) * BD + tl.arange(0, BD)
    m_d = i_d < D
    b_sum = tl.zeros((BT, BD), dtype=ACC)
    for first in range(0, parts, BT):
        i_part = first + tl.arange(0, BT)
        mask = (i_part < parts)[:, None] & m_d[None, :]
        b_sum += tl.load(p_part + i_part[:, None] * D + i_d[None, :], mask=mask, other=0.0)
    tl.store(p_sum + i_d, tl.sum(b_sum, 0).to(p_sum.dtype.element_ty), mask=m_d)
