"""Kernels of the MLP: the two products whose results GELU reads or changes, each with GELU in its epilogue.

mlp_up_kernel     z = x W1^T + b1 and gelu(z): GELU does not read z from memory again
mlp_dwide_kernel  dz = (dy W2) gelu'(z): the gradient of gelu(z) is never in memory

A program makes one tile of BT rows and BF columns and sums over the width D in steps of BD. z is rounded before GELU,
as the backward pass reads it. With u = sqrt(2 / pi) (z + 0.044715 z^3) and s = 1 / (1 + exp(-2 u)):
    gelu(z) = z s,     gelu'(z) = s + z ds/dz,     ds/dz = 2 s (1 - s) du/dz                 (tanh(u) = 2 s - 1)
No atomics: each element has one owner, and its sum one order.
"""

import triton
import triton.language as tl

from dnagpt_fast.ops.triton_settings import COUNTS

SLOPE = tl.constexpr(0.7978845608028654)  # sqrt(2 / pi); a kernel reads only constexpr globals
CUBE = tl.constexpr(0.044715)
GROUP = tl.constexpr(8)


@triton.jit
def mlp_place(R, F, BT: tl.constexpr, BF: tl.constexpr):
    """(rows [BT], columns [BF]) of this program: GROUP tiles of rows take turns, so that their operands stay in L2."""
    row_tiles, tiles = tl.cdiv(R, BT), tl.cdiv(F, BF)
    first = tl.program_id(0) // (GROUP * tiles) * GROUP
    size = tl.minimum(row_tiles - first, GROUP)
    inside = tl.program_id(0) % (GROUP * tiles)
    i_row = (first + inside % size) * BT + tl.arange(0, BT)
    return i_row, (inside // size) * BF + tl.arange(0, BF)


@triton.jit
def mlp_product(
    p_a,  # (R, D)
    p_w,  # (F, D), or with ROWS_OF_D (D, F)
    i_row,  # [BT], rows that may be read
    i_f,  # [BF], columns that may be read
    D,
    F,
    ROWS_OF_D: tl.constexpr,
    EVEN_D: tl.constexpr,
    BT: tl.constexpr,
    BF: tl.constexpr,
    BD: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):
    """[BT, BF] in ACC: a W^T, or with ROWS_OF_D a W."""
    p_rows = p_a + i_row.to(tl.int64)[:, None] * D
    b_sum = tl.zeros((BT, BF), dtype=ACC)
    for o_d in range(0, D, BD):
        i_d = o_d + tl.arange(0, BD)
        m_d = i_d < D
        if EVEN_D:
            b_a = tl.load(p_rows + i_d[None, :])
        else:
            b_a = tl.load(p_rows + i_d[None, :], mask=m_d[None, :], other=0.0)
        # [BD, BF]
        if ROWS_OF_D:
            p_tile = p_w + i_d.to(tl.int64)[:, None] * F + i_f[None, :]
            b_w = tl.load(p_tile) if EVEN_D else tl.load(p_tile, mask=m_d[:, None], other=0.0)
        else:
            p_tile = p_w + i_f.to(tl.int64)[:, None] * D + i_d[None, :]
            b_w = tl.trans(tl.load(p_tile) if EVEN_D else tl.load(p_tile, mask=m_d[None, :], other=0.0))
        b_sum = tl.dot(b_a, b_w, b_sum, input_precision=PRECISION, out_dtype=ACC)
    return b_sum


@triton.jit
def gelu_share(b_z):
    """(s, ds/dz) of the equations above."""
    b_square = b_z * b_z
    b_u = SLOPE * b_z * (1.0 + CUBE * b_square)
    b_e = tl.exp(-2.0 * tl.abs(b_u))  # at most 1
    b_part = 1.0 / (1.0 + b_e)
    b_slope = 2.0 * b_e * b_part * b_part * SLOPE * (1.0 + 3.0 * CUBE * b_square)
    return tl.where(b_u < 0.0, b_e, 1.0) * b_part, b_slope


@triton.jit(do_not_specialize=COUNTS)
def mlp_up_kernel(
    p_x,  # (R, D)
    p_w,  # (F, D)
    p_bias,  # (F,)
    p_wide,  # (R, F)
    p_gelu,  # (R, F)
    R,
    D,
    F,
    HAS_BIAS: tl.constexpr,
    EVEN_D: tl.constexpr,
    BT: tl.constexpr,
    BF: tl.constexpr,
    BD: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):
    i_row, i_f = mlp_place(R, F, BT, BF)
    mask = (i_row < R)[:, None] & (i_f < F)[None, :]
    b_z = mlp_product(
        p_x, p_w, tl.where(i_row < R, i_row, 0), tl.where(i_f < F, i_f, 0), D, F, False, EVEN_D, BT, BF, BD,
        PRECISION, ACC,
    )  # fmt: skip
    if HAS_BIAS:
        b_z += tl.load(p_bias + i_f, mask=i_f < F, other=0.0).to(ACC)[None, :]
    o = i_row.to(tl.int64)[:, None] * F + i_f[None, :]
    b_z = b_z.to(p_wide.dtype.element_ty)
    tl.store(p_wide + o, b_z, mask=mask)
    b_z = b_z.to(ACC)
    b_share, _slope = gelu_share(b_z)
    tl.store(p_gelu + o, (b_z * b_share).to(p_gelu.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=COUNTS)
def mlp_dwide_kernel(
    p_dy,  # (R, D)
    p_w,  # (D, F)
    p_wide,  # (R, F)
    p_dwide,  # (R, F)
    R,
    D,
    F,
    EVEN_D: tl.constexpr,
    BT: tl.constexpr,
    BF: tl.constexpr,
    BD: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):
    i_row, i_f = mlp_place(R, F, BT, BF)
    mask = (i_row < R)[:, None] & (i_f < F)[None, :]
    b_da = mlp_product(
        p_dy, p_w, tl.where(i_row < R, i_row, 0), tl.where(i_f < F, i_f, 0), D, F, True, EVEN_D, BT, BF, BD,
        PRECISION, ACC,
    )  # fmt: skip
    o = i_row.to(tl.int64)[:, None] * F + i_f[None, :]
    b_z = tl.load(p_wide + o, mask=mask, other=0.0).to(ACC)
    b_share, b_slope = gelu_share(b_z)
    b_dz = b_da * (b_share + b_z * b_slope)
    tl.store(p_dwide + o, b_dz.to(p_dwide.dtype.element_ty), mask=mask)
