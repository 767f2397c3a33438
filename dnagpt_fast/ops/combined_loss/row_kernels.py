"""Kernels of the loss with its gradient in the forward pass (products.py): counts first, then softmax and dz in place.

combined_loss_count_kernel    one program: the number of rows of each kind, and from it the scale of their gradients
combined_loss_softmax_kernel  one row of logits: (max, sum of exp) as the forward kernel gives them; then its gradient
No atomics: one program computes each sum in a fixed order. A row's columns are token ids, not places.
"""

import triton
import triton.language as tl

from dnagpt_fast.ops.combined_loss.forward_kernels import ROW_NEXT_TOKEN, ROW_ORDER, capped, entries_of
from dnagpt_fast.ops.triton_settings import COUNTS


@triton.jit(do_not_specialize=COUNTS)
def combined_loss_count_kernel(
    p_targets,  # (R,)
    p_kind,  # (R,)
    p_scales,  # (2,)
    R,
    ignore_index,
    order_weight,
    HAS_KIND: tl.constexpr,
    MEAN: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The scales that combined_loss_finish_kernel gives, before any row is computed. Grid: (1,)."""
    b_next = tl.zeros((BLOCK,), dtype=tl.int32)
    b_order = tl.zeros((BLOCK,), dtype=tl.int32)
    for o_row in range(0, R, BLOCK):
        i_row = o_row + tl.arange(0, BLOCK)
        m_row = i_row < R
        m_counted = m_row & (tl.load(p_targets + i_row, mask=m_row, other=ignore_index) != ignore_index)
        if HAS_KIND:
            b_kind = tl.load(p_kind + i_row, mask=m_row, other=0)
            b_order += (m_counted & (b_kind == ROW_ORDER)).to(tl.int32)
            m_counted = m_counted & (b_kind == ROW_NEXT_TOKEN)
        b_next += m_counted.to(tl.int32)
    next_count = tl.sum(b_next, 0).to(ACC)
    order_count = tl.sum(b_order, 0).to(ACC)
    base = next_count * 0.0 + 1.0
    order_scale = base * order_weight
    if MEAN:
        base = tl.where(next_count > 0, 1.0 / tl.maximum(next_count, 1.0), 1.0)
        order_scale = order_weight / tl.maximum(order_count, 1.0)
    tl.store(p_scales, base)
    tl.store(p_scales + 1, order_scale / base)


@triton.jit
def logits_of_row(
    p_row, i_v, V, soft_cap, SOFT_CAP: tl.constexpr, ACC: tl.constexpr
):  # fmt: skip
    """(logits [BLOCK], logits / soft_cap) of some columns; 0 past V."""
    return capped(tl.load(p_row + i_v, mask=i_v < V, other=0.0).to(ACC), soft_cap, SOFT_CAP)


@triton.jit
def shifted(b_z, i_v, V, log_rest, REST: tl.constexpr):
    """With REST the last column stands for many equal entries; -inf past V."""
    if REST:
        b_z += tl.where(i_v == V - 1, log_rest, 0.0)
    return tl.where(i_v < V, b_z, float("-inf"))


@triton.jit(do_not_specialize=COUNTS)
def combined_loss_softmax_kernel(
    p_z,  # (rows of the chunk, V) by rows
    p_targets,  # (R,)
    p_kind,  # (R,)
    p_scales,  # (2,)
    p_max,  # (R,)
    p_sum,  # (R,)
    p_logit_sum,  # (R,)
    p_target_logit,  # (R,)
    V,
    stride_z,
    first_row,
    ignore_index,
    label_smoothing,
    z_loss,
    soft_cap,
    rest,
    log_rest,
    entries,
    HAS_KIND: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    SMOOTH: tl.constexpr,
    REST: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """p_z: logits before the cap, which become d loss / d logits relative to scales[0]; 0 in rows that do not
    count. Grid: (rows of the chunk,)."""
    i_here = tl.program_id(0).to(tl.int64)
    i_row = first_row + tl.program_id(0)
    p_row = p_z + i_here * stride_z
    i_block = tl.arange(0, BLOCK)
    target = tl.load(p_targets + i_row)
    scale = tl.full([], 1.0, ACC)
    counts = (target != ignore_index).to(tl.int32)
    if HAS_KIND:
        kind = tl.load(p_kind + i_row)
        scale = tl.where(kind == ROW_ORDER, tl.load(p_scales + 1), scale)
        counts = tl.where(kind == ROW_ORDER, counts, tl.where(kind == ROW_NEXT_TOKEN, counts, 0))
    if counts == 0:
        for o_v in tl.range(0, V, BLOCK):
            i_v = o_v + i_block
            tl.store(p_row + i_v, tl.zeros((BLOCK,), dtype=p_z.dtype.element_ty), mask=i_v < V)
        return
    # not a token: no column is hit, and the row's gradient is NaN
    hit = tl.where(target < V, target, -1)
    scale = tl.where(hit >= 0, scale, float("nan"))

    b_max = tl.full((BLOCK,), float("-inf"), dtype=ACC)
    b_target = tl.zeros((BLOCK,), dtype=ACC)
    b_logits = tl.zeros((BLOCK,), dtype=ACC)
    for o_v in tl.range(0, V, BLOCK):
        i_v = o_v + i_block
        b_z, _b_u = logits_of_row(p_row, i_v, V, soft_cap, SOFT_CAP, ACC)
        b_target += tl.where(i_v == hit, b_z, 0.0)
        if SMOOTH:
            b_logits += b_z * entries_of(i_v, V, rest, REST)
        b_max = tl.maximum(b_max, shifted(b_z, i_v, V, log_rest, REST))
    row_max = tl.max(b_max, 0)
    b_sum = tl.zeros((BLOCK,), dtype=ACC)
    for o_v in tl.range(0, V, BLOCK):
        i_v = o_v + i_block
        b_z, _b_u = logits_of_row(p_row, i_v, V, soft_cap, SOFT_CAP, ACC)
        b_sum += tl.exp(shifted(b_z, i_v, V, log_rest, REST) - row_max)
    row_sum = tl.sum(b_sum, 0)
    tl.store(p_max + i_row, row_max)
    tl.store(p_sum + i_row, row_sum)
    tl.store(p_target_logit + i_row, tl.sum(b_target, 0))
    if SMOOTH:
        tl.store(p_logit_sum + i_row, tl.sum(b_logits, 0))

    lse = row_max + tl.log(row_sum)
    factor = 1.0 + 2.0 * z_loss * lse
    for o_v in tl.range(0, V, BLOCK):
        i_v = o_v + i_block
        b_z, b_u = logits_of_row(p_row, i_v, V, soft_cap, SOFT_CAP, ACC)
        b_g = tl.exp(shifted(b_z, i_v, V, log_rest, REST) - lse) * factor
        if SMOOTH:
            b_g -= (label_smoothing / entries) * entries_of(i_v, V, rest, REST)
        # p - 1 in ACC, from the logit itself: the true class keeps its digits where p is near 1
        b_g -= tl.where(i_v == hit, 1.0 - label_smoothing, 0.0)
        if SOFT_CAP:
            b_g *= 1.0 - b_u * b_u
        tl.store(p_row + i_v, (b_g * scale).to(p_z.dtype.element_ty), mask=i_v < V)
