"""Forward kernels of the combined loss: tiles of logits in registers, partial results per split, combine, finish.

combined_loss_forward_kernel   rows x splits of the vocabulary: per row and split (max, sum of exp) of its logits
combined_loss_combine_kernel   per row: logsumexp, loss, log-probability; per block of rows: sums and counts
combined_loss_finish_kernel    one program: the four scalars, the scale of each kind of row, the GC gradient
No atomics and no host sync: one program computes each sum in a fixed order, so a run repeats bit for bit.
The vocabulary is in the order of tiles.py (p_order: place -> token id): with K > 0 its first 4^K places are the plain
k-mers, and two bits of the place are the base at place i of the k-mer. With REST the last entry represents `rest` equal
entries: log_rest is added to its logit.
"""

import triton
import triton.language as tl

from dnagpt_fast.ops.triton_settings import COUNTS

ROW_NEXT_TOKEN = tl.constexpr(1)  # batch.py's values; a kernel reads only constexpr globals
ROW_ORDER = tl.constexpr(2)
BASES = tl.constexpr(8)  # columns for the bases of a k-mer: the next power of two after MAX_K = 6
LEAST_BASE_PROBABILITY = tl.constexpr(1e-30)  # base_level.py's


@triton.jit
def row_facts(p_targets, p_kind, p_place, i_row, m_row, vocab, ignore_index, HAS_KIND: tl.constexpr):
    """(place of the target, counted, is an order row) of a block of rows; place -1: not counted, or not a token."""
    b_target = tl.load(p_targets + i_row, mask=m_row, other=ignore_index)
    m_counted = m_row & (b_target != ignore_index)
    m_order = m_row & (i_row < 0)
    if HAS_KIND:
        b_kind = tl.load(p_kind + i_row, mask=m_row, other=0)
        m_order = m_counted & (b_kind == ROW_ORDER)
        m_counted = m_order | (m_counted & (b_kind == ROW_NEXT_TOKEN))
    # ignore_index may be the id of a token: an ignored row must not match it
    m_inside = m_counted & (b_target >= 0) & (b_target < vocab)
    return tl.load(p_place + b_target, mask=m_inside, other=-1), m_counted, m_order


@triton.jit
def paid_by_base(b_place, m_counted, m_order, K: tl.constexpr):
    """The rows with the base-level loss: next-token rows whose target is a plain k-mer."""
    return m_counted & (m_order == 0) & (b_place >= 0) & (b_place < (1 << (2 * K)))


@triton.jit
def tanh(u):
    """tanh without libdevice, accurate to some ulps: a polynomial near 0, where (1 - e) / (1 + e) would cancel."""
    e = tl.exp(-2.0 * tl.abs(u))
    far = (1.0 - e) / (1.0 + e)
    s = u * u
    near = u * (
        1.0 + s * (-1.0 / 3 + s * (2.0 / 15 + s * (-17.0 / 315 + s * (62.0 / 2835 - s * (1382.0 / 155925)))))
    )
    return tl.where(tl.abs(u) < 0.25, near, tl.where(u < 0, -far, far))


@triton.jit
def load_columns(p, m_d, EVEN_D: tl.constexpr):
    """A tile of rows of width D; columns past D, if any, are 0."""
    if EVEN_D:
        return tl.load(p)
    return tl.load(p, mask=m_d[None, :], other=0.0)


@triton.jit
def logits_tile(
    p_x,  # (R, D)
    p_w,  # (V, D)
    p_b,  # (V,)
    p_order,  # (V,)
    i_row,  # [BT], rows that may be read
    i_v,  # [BV], places, of which those past V are read as token 0
    V,
    D,
    soft_cap,
    HAS_BIAS: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
    EVEN_D: tl.constexpr,
    BT: tl.constexpr,
    BV: tl.constexpr,
    BD: tl.constexpr,
):
    """(logits [BT, BV] in ACC, logits / soft_cap): the caller masks."""
    b_token = tl.load(p_order + i_v, mask=i_v < V, other=0)
    p_rows = p_x + i_row.to(tl.int64)[:, None] * D
    p_tokens = p_w + b_token.to(tl.int64)[:, None] * D
    b_z = tl.zeros((BT, BV), dtype=ACC)
    for o_d in range(0, D, BD):
        i_d = o_d + tl.arange(0, BD)
        b_x = load_columns(p_rows + i_d[None, :], i_d < D, EVEN_D)
        b_w = load_columns(p_tokens + i_d[None, :], i_d < D, EVEN_D)
        # [BT, BD] x [BD, BV]
        b_z = tl.dot(b_x, tl.trans(b_w), b_z, input_precision=PRECISION, out_dtype=ACC)
    if HAS_BIAS:
        b_z += tl.load(p_b + b_token).to(ACC)[None, :]
    return capped(b_z, soft_cap, SOFT_CAP)


@triton.jit
def capped(b_z, soft_cap, SOFT_CAP: tl.constexpr):
    """(logits after the soft cap, logits / soft_cap after tanh), of any shape."""
    b_u = b_z
    if SOFT_CAP:
        b_u = tanh(b_z / soft_cap)
        b_z = b_u * soft_cap
    return b_z, b_u


@triton.jit
def entries_of(i_v, V, rest, REST: tl.constexpr):
    """The number of vocabulary entries of each place [BV]: one, 0 past V, and with REST `rest` for the last place."""
    b_many = tl.where(i_v < V, 1.0, 0.0)
    if REST:
        b_many = tl.where(i_v == V - 1, rest, b_many)
    return b_many


@triton.jit
def same_base(b_place, i_v, SHIFT: tl.constexpr):
    """[BT, BV]: whether the plain k-mer at place i_v has the base of the target at this place of the k-mer."""
    return ((b_place >> SHIFT) & 3)[:, None] == ((i_v >> SHIFT) & 3)[None, :]


@triton.jit
def base_sums(b_e, b_sum, b_place, i_v, first, K: tl.constexpr, BT: tl.constexpr, BV: tl.constexpr):
    """[BT, BASES], a column for each place of the k-mer: sum of b_e [BT, BV] over plain k-mers with the target's base.

    b_sum [BT]: the sum over the whole tile, which begins at the place `first`.
    """
    i_base = tl.arange(0, BASES)
    b_sums = tl.zeros((BT, BASES), dtype=b_e.dtype)
    for i in tl.static_range(K):
        if (1 << (2 * (K - 1 - i))) >= BV:  # all k-mers of the tile have one base there
            m_same = ((b_place >> (2 * (K - 1 - i))) & 3) == ((first >> (2 * (K - 1 - i))) & 3)
            b_mine = tl.where(m_same, b_sum, 0.0)
        else:
            m_plain = (i_v < (1 << (2 * K)))[None, :]
            b_mine = tl.sum(tl.where(same_base(b_place, i_v, 2 * (K - 1 - i)) & m_plain, b_e, 0.0), 1)
        b_sums += tl.where(i_base[None, :] == i, b_mine[:, None], 0.0)
    return b_sums


@triton.jit(do_not_specialize=COUNTS)
def combined_loss_forward_kernel(
    p_x,  # (R, D)
    p_w,  # (V, D)
    p_b,  # (V,)
    p_targets,  # (R,)
    p_kind,  # (R,)
    p_order,  # (V,)
    p_place,  # (V,)
    p_max,  # (splits, R)
    p_sum,  # (splits, R)
    p_logit_sum,  # (splits, R)
    p_base_sum,  # (splits, R, BASES)
    p_target_logit,  # (R,)
    p_tile_max,  # (tiles, R)
    R,
    V,
    D,
    ignore_index,
    soft_cap,
    rest,
    log_rest,
    tiles,
    tiles_a_split,
    HAS_BIAS: tl.constexpr,
    HAS_KIND: tl.constexpr,
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
):
    i_split = tl.program_id(1)
    i_row = tl.program_id(0) * BT + tl.arange(0, BT)
    m_row = i_row < R
    b_place, m_counted, _m_order = row_facts(
        p_targets, p_kind, p_place, i_row, m_row, V, ignore_index, HAS_KIND
    )
    if tl.max(m_counted.to(tl.int32)) == 0:
        return
    i_read = tl.where(m_row, i_row, 0)
    b_max = tl.full((BT,), float("-inf"), dtype=ACC)
    b_sum = tl.zeros((BT,), dtype=ACC)
    b_logit_sum = tl.zeros((BT,), dtype=ACC)
    b_target_logit = tl.zeros((BT,), dtype=ACC)
    b_base_sum = tl.zeros((BT, BASES), dtype=ACC)
    m_mine = m_row & (i_row < 0)
    for i_tile in range(i_split * tiles_a_split, tl.minimum(tiles, (i_split + 1) * tiles_a_split)):
        i_v = i_tile * BV + tl.arange(0, BV)
        m_v = i_v < V
        b_z, _b_u = logits_tile(
            p_x, p_w, p_b, p_order, i_read, i_v, V, D, soft_cap,
            HAS_BIAS, SOFT_CAP, PRECISION, ACC, EVEN_D, BT, BV, BD,
        )  # fmt: skip
        b_target_logit += tl.sum(tl.where(i_v[None, :] == b_place[:, None], b_z, 0.0), 1)
        m_hit = (b_place >= i_tile * BV) & (b_place < (i_tile + 1) * BV)
        m_mine = m_mine | m_hit
        if SMOOTH:
            b_many = entries_of(i_v, V, rest, REST)
            b_logit_sum += tl.sum(tl.where(m_v[None, :], b_z * b_many[None, :], 0.0), 1)
        if REST:
            b_z += tl.where(i_v == V - 1, log_rest, 0.0)[None, :]
        b_z = tl.where(m_v[None, :], b_z, float("-inf"))
        b_tile_max = tl.max(b_z, 1)
        if SKIP:  # a tile with a row's target always counts for that row
            b_seen = tl.where(m_hit, float("inf"), b_tile_max)
            tl.store(p_tile_max + i_tile * R + i_row, b_seen.to(tl.float32), mask=m_row)
        b_new = tl.maximum(b_max, b_tile_max)
        b_rescale = tl.exp(b_max - b_new)
        b_e = tl.exp(b_z - b_new[:, None])
        b_tile_sum = tl.sum(b_e, 1)
        b_sum = b_sum * b_rescale + b_tile_sum
        if K:
            b_base_sum *= b_rescale[:, None]
            if i_tile * BV < (1 << (2 * K)):
                b_base_sum += base_sums(b_e, b_tile_sum, b_place, i_v, i_tile * BV, K, BT, BV)
        b_max = b_new
    o_split = i_split * R
    tl.store(p_max + o_split + i_row, b_max, mask=m_row)
    tl.store(p_sum + o_split + i_row, b_sum, mask=m_row)
    if SMOOTH:
        tl.store(p_logit_sum + o_split + i_row, b_logit_sum, mask=m_row)
    if K:
        p_bases = p_base_sum + (o_split + i_row).to(tl.int64)[:, None] * BASES + tl.arange(0, BASES)[None, :]
        tl.store(p_bases, b_base_sum, mask=m_row[:, None])
    tl.store(p_target_logit + i_row, b_target_logit, mask=m_mine)


@triton.jit(do_not_specialize=COUNTS)
def combined_loss_combine_kernel(
    p_targets,  # (R,)
    p_kind,  # (R,)
    p_place,  # (V,)
    p_max,  # (splits, R)
    p_sum,  # (splits, R)
    p_logit_sum,  # (splits, R)
    p_base_sum,  # (splits, R, BASES)
    p_target_logit,  # (R,)
    p_tile_max,  # (tiles of the forward pass, R)
    p_lse,  # (R,)
    p_rows,  # (R,)
    p_log_probs,  # (R,)
    p_base_pull,  # (R, BASES)
    p_block_sums,  # (row tiles, 4)
    p_keep,  # (row tiles, tiles)
    R,
    V,
    ignore_index,
    splits,
    tiles,
    label_smoothing,
    z_loss,
    base_level,
    entries,
    log_skip_below,
    HAS_KIND: tl.constexpr,
    SMOOTH: tl.constexpr,
    SKIP: tl.constexpr,
    K: tl.constexpr,
    ACC: tl.constexpr,
    BT: tl.constexpr,
    BV: tl.constexpr,  # entries of a tile of the forward pass
    NARROW: tl.constexpr,  # of these tiles in one of p_keep
):
    i_block = tl.program_id(0)
    i_row = i_block * BT + tl.arange(0, BT)
    m_row = i_row < R
    b_place, m_counted, m_order = row_facts(
        p_targets, p_kind, p_place, i_row, m_row, V, ignore_index, HAS_KIND
    )
    i_base = tl.arange(0, BASES)
    b_max = tl.full((BT,), float("-inf"), dtype=ACC)
    b_sum = tl.zeros((BT,), dtype=ACC)
    b_mean = tl.zeros((BT,), dtype=ACC)
    b_base_sum = tl.zeros((BT, BASES), dtype=ACC)
    for i_split in range(splits):
        o_split = i_split * R
        b_part = tl.load(p_max + o_split + i_row, mask=m_counted, other=0.0)
        b_new = tl.maximum(b_max, b_part)
        b_rescale = tl.exp(b_max - b_new)
        b_part = tl.exp(b_part - b_new)
        b_sum = b_sum * b_rescale + tl.load(p_sum + o_split + i_row, mask=m_counted, other=1.0) * b_part
        if SMOOTH:
            b_mean += tl.load(p_logit_sum + o_split + i_row, mask=m_counted, other=0.0) / entries
        if K:
            p_bases = p_base_sum + (o_split + i_row).to(tl.int64)[:, None] * BASES + i_base[None, :]
            b_bases = tl.load(p_bases, mask=m_counted[:, None], other=0.0)
            b_base_sum = b_base_sum * b_rescale[:, None] + b_bases * b_part[:, None]
        b_max = b_new
    b_lse = b_max + tl.log(b_sum)
    b_logit = tl.load(p_target_logit + i_row, mask=b_place >= 0, other=float("nan"))
    b_log_prob = b_logit - b_lse
    b_loss = -(1.0 - label_smoothing) * b_log_prob
    if SMOOTH:
        b_loss += label_smoothing * (b_lse - b_mean)
    if K:
        m_base = paid_by_base(b_place, m_counted, m_order, K)
        b_base = tl.maximum(b_base_sum / b_sum[:, None], LEAST_BASE_PROBABILITY)
        m_base_here = m_base[:, None] & (i_base < K)[None, :]
        b_base_loss = -tl.sum(tl.where(m_base_here, tl.log(b_base), 0.0), 1) / K
        b_loss = tl.where(m_base, (1.0 - base_level) * b_loss + base_level * b_base_loss, b_loss)
        b_pull = tl.where(m_base_here, base_level / K / b_base, 0.0)
        tl.store(
            p_base_pull + i_row.to(tl.int64)[:, None] * BASES + i_base[None, :], b_pull, mask=m_row[:, None]
        )
    b_loss = tl.where(m_counted, b_loss + z_loss * b_lse * b_lse, 0.0)
    tl.store(p_lse + i_row, b_lse, mask=m_row)
    tl.store(p_rows + i_row, b_loss, mask=m_row)
    tl.store(p_log_probs + i_row, tl.where(m_counted, b_log_prob, 0.0), mask=m_row)
    m_next = m_counted & (m_order == 0)
    p_mine = p_block_sums + i_block * 4
    tl.store(p_mine, tl.sum(tl.where(m_next, b_loss, 0.0), 0))
    tl.store(p_mine + 1, tl.sum(tl.where(m_order, b_loss, 0.0), 0))
    tl.store(p_mine + 2, tl.sum(m_next.to(ACC), 0))
    tl.store(p_mine + 3, tl.sum(m_order.to(ACC), 0))
    if SKIP:
        for i_tile in range(tiles):
            kept = 0
            for part in tl.static_range(NARROW):
                i_part = i_tile * NARROW + part
                m_here = m_counted & (tl.full((BT,), i_part * BV, dtype=tl.int32) < V)
                b_tile_max = tl.load(p_tile_max + i_part * R + i_row, mask=m_here, other=0.0)
                # written so that a NaN keeps its tile
                m_kept = m_here & ((b_tile_max - b_lse < log_skip_below) == 0)
                kept = tl.maximum(kept, tl.max(m_kept.to(tl.int32), 0))
            tl.store(p_keep + i_block * tiles + i_tile, kept)


@triton.jit(do_not_specialize=COUNTS)
def combined_loss_finish_kernel(
    p_block_sums,  # (row tiles, 4)
    p_gc_prediction,  # (B,)
    p_gc_target,  # (B,)
    p_gc_mask,  # (B,)
    p_total,  # ()
    p_next,  # ()
    p_order_loss,  # ()
    p_gc,  # ()
    p_scales,  # (2,)
    p_d_gc,  # (B,)
    blocks,
    B,
    order_weight,
    gc_weight,
    MEAN: tl.constexpr,
    HAS_GC: tl.constexpr,
    HAS_GC_MASK: tl.constexpr,
    GC_GRADIENT: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    b_sums = tl.zeros((BLOCK, 4), dtype=ACC)
    i_part = tl.arange(0, 4)
    for o_block in range(0, blocks, BLOCK):
        i_block = o_block + tl.arange(0, BLOCK)
        b_sums += tl.load(
            p_block_sums + i_block[:, None] * 4 + i_part[None, :], mask=i_block[:, None] < blocks, other=0.0
        )
    b_parts = tl.sum(b_sums, 0)
    next_sum = tl.sum(tl.where(i_part == 0, b_parts, 0.0), 0)
    order_sum = tl.sum(tl.where(i_part == 1, b_parts, 0.0), 0)
    next_scale = tl.sum(tl.where(i_part == 2, b_parts, 0.0), 0)
    order_scale = tl.sum(tl.where(i_part == 3, b_parts, 0.0), 0)
    has_next = next_scale > 0
    if MEAN:
        next_scale = 1.0 / tl.maximum(next_scale, 1.0)
        order_scale = 1.0 / tl.maximum(order_scale, 1.0)
    else:
        next_scale = next_scale * 0.0 + 1.0
        order_scale = order_scale * 0.0 + 1.0
    next_token = next_sum * next_scale
    order = order_sum * order_scale
    gc = next_sum * 0.0
    if HAS_GC:
        b_error2 = tl.zeros((BLOCK,), dtype=ACC)
        b_count = tl.zeros((BLOCK,), dtype=ACC)
        for o_sample in range(0, B, BLOCK):
            i_sample = o_sample + tl.arange(0, BLOCK)
            m_sample = i_sample < B
            if HAS_GC_MASK:
                m_sample = m_sample & (tl.load(p_gc_mask + i_sample, mask=m_sample, other=0) != 0)
            b_error = tl.load(p_gc_prediction + i_sample, mask=m_sample, other=0.0).to(ACC)
            b_error -= tl.load(p_gc_target + i_sample, mask=m_sample, other=0.0).to(ACC)
            b_error2 += b_error * b_error
            b_count += m_sample.to(ACC)
        gc_scale = gc + 1.0
        if MEAN:
            gc_scale = 1.0 / tl.maximum(tl.sum(b_count, 0), 1.0)
        gc = tl.sum(b_error2, 0) * gc_scale
        if GC_GRADIENT:
            for o_sample in range(0, B, BLOCK):
                i_sample = o_sample + tl.arange(0, BLOCK)
                m_sample = i_sample < B
                m_used = m_sample
                if HAS_GC_MASK:
                    m_used = m_sample & (tl.load(p_gc_mask + i_sample, mask=m_sample, other=0) != 0)
                b_error = tl.load(p_gc_prediction + i_sample, mask=m_used, other=0.0).to(ACC)
                b_error -= tl.load(p_gc_target + i_sample, mask=m_used, other=0.0).to(ACC)
                tl.store(p_d_gc + i_sample, 2.0 * gc_weight * gc_scale * b_error, mask=m_sample)
    tl.store(p_total, next_token + order_weight * order + gc_weight * gc)
    tl.store(p_next, next_token)
    tl.store(p_order_loss, order)
    tl.store(p_gc, gc)
    # the backward keeps dz relative to scales[0], so that it fits fp16: next-token rows at 1, order rows at scales[1]
    order_scale = order_scale * order_weight
    base = tl.where(has_next, next_scale, 1.0)
    tl.store(p_scales, base)
    tl.store(p_scales + 1, order_scale / base)
