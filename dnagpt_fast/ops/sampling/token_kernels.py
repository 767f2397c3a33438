"""Sampling on a GPU without sorting: a program walks over its row of logits, which stays in the cache, a few times.

Top-k is the largest threshold with k values at or above it, top-p the smallest with at most top_p of the probability
above it: each is found two bits at a time, with one pass over the row for two bits. The drawn token is the first whose
running sum exceeds u. All sums have a fixed order, so the same logits and numbers give the same token in any batch.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from dnagpt_fast.ops.registration import register_op
from dnagpt_fast.ops.sampling.settings import HOWS, Choice
from dnagpt_fast.ops.triton_settings import COUNTS, LAUNCH, family

BLOCK, WARPS = 2048, 8
# Without a limit ptxas takes 80 registers for top-p alone on RTX Blackwell and spills; with this one 77, and no spill.
LIMITS = {"rtx blackwell": {"maxnreg": 96}}
# bits of a float32 in which numbers of this dtype differ
BITS = {torch.float32: 32, torch.bfloat16: 16, torch.float16: 20}


@triton.jit
def ordered(b_x):
    """float32 -> uint32 in the same order; -0 and 0 are equal."""
    b_bits = (b_x + 0.0).to(tl.int32, bitcast=True)
    b_key = tl.where(b_bits < 0, ~b_bits, b_bits ^ -2147483648)
    return b_key.to(tl.uint32, bitcast=True)


@triton.jit
def logits_of(p_logits, p_allowed, o_v, V, ALLOWED: tl.constexpr):
    """Logits of some tokens as float32; -inf for those that are not allowed or do not exist."""
    m_v = o_v < V
    if ALLOWED:
        m_v = m_v & (tl.load(p_allowed + o_v, mask=m_v, other=0) != 0)
    return tl.load(p_logits + o_v, mask=m_v, other=float("-inf")).to(tl.float32)


@triton.jit
def threshold(
    p_logits, p_allowed, V, b_top, factor, b_from, b_target,
    BLOCK: tl.constexpr, ALLOWED: tl.constexpr, COUNT: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """The largest key t for which the sum over the tokens with keys >= max(t, b_from) is more than b_target; 0 if there
    is none. COUNT: the sum of ones; otherwise of weights."""
    b_best = tl.full([], 0, tl.uint32)
    b_one = tl.full([], 1 << 30, tl.uint32)
    for _ in tl.range(0, BITS // 2):
        b_1 = b_best + b_one
        b_2 = b_1 + b_one
        b_3 = b_2 + b_one
        # [BLOCK] each
        b_sum_1 = tl.zeros([BLOCK], tl.float32)
        b_sum_2 = tl.zeros([BLOCK], tl.float32)
        b_sum_3 = tl.zeros([BLOCK], tl.float32)
        for i_v in tl.range(0, V, BLOCK):
            b_x = logits_of(p_logits, p_allowed, i_v + tl.arange(0, BLOCK), V, ALLOWED)
            b_key = ordered(b_x)
            if COUNT:
                b_w = tl.where(b_key >= b_from, 1.0, 0.0)
            else:
                b_w = tl.where(b_key >= b_from, tl.exp2((b_x - b_top) * factor), 0.0)
            b_sum_1 += tl.where(b_key >= b_1, b_w, 0.0)
            b_sum_2 += tl.where(b_key >= b_2, b_w, 0.0)
            b_sum_3 += tl.where(b_key >= b_3, b_w, 0.0)
        b_next = tl.where(tl.sum(b_sum_1, 0) > b_target, b_1, b_best)
        b_next = tl.where(tl.sum(b_sum_2, 0) > b_target, b_2, b_next)
        b_best = tl.where(tl.sum(b_sum_3, 0) > b_target, b_3, b_next)
        b_one = b_one >> 2
    return b_best


@triton.jit
def weights_of(b_x, o_v, b_top, factor, b_from, b_edge, b_last):
    """exp(z - max z) of the tokens that passed the filters, 0 of the others. Of the tokens with key b_edge, only those
    up to id b_last passed."""
    b_key = ordered(b_x)
    m_kept = (b_key >= b_from) & ((b_key > b_edge) | ((b_key == b_edge) & (o_v <= b_last)))
    return tl.where(m_kept, tl.exp2((b_x - b_top) * factor), 0.0)


@triton.jit(do_not_specialize=COUNTS)
def sampling_next_tokens_kernel(
    p_logits, p_allowed, p_numbers, p_token, factor, top_k, top_p, stride_b, V,
    BLOCK: tl.constexpr, ALLOWED: tl.constexpr, TOP_K: tl.constexpr, TOP_P: tl.constexpr, HOW: tl.constexpr,
    BITS: tl.constexpr,
):  # fmt: skip
    """One row. Grid: (B,). p_logits (B, V) by rows, p_allowed bytes (V,), p_numbers float64 (B,) or (B, V) by rows;
    factor: log2(e) / temperature; HOW: the place in HOWS."""
    i_b = tl.program_id(0).to(tl.int64)
    p_logits += i_b * stride_b
    o_j = tl.arange(0, BLOCK)
    b_max = tl.full([BLOCK], float("-inf"), tl.float32)
    b_bad = tl.zeros([BLOCK], tl.int32)
    for i_v in tl.range(0, V, BLOCK):
        b_x = logits_of(p_logits, p_allowed, i_v + o_j, V, ALLOWED)
        b_bad |= ((b_x != b_x) | (b_x == float("inf"))).to(tl.int32)
        b_max = tl.maximum(b_max, b_x)
    b_top = tl.max(b_max, 0)
    if (tl.max(b_bad, 0) > 0) | (b_top == float("-inf")):
        tl.store(p_token + i_b, tl.full([], -1, tl.int64))
        return
    b_token = tl.full([], 2147483647, tl.int32)
    if HOW == 0:
        for i_v in tl.range(0, V, BLOCK):
            b_x = logits_of(p_logits, p_allowed, i_v + o_j, V, ALLOWED)
            b_token = tl.minimum(b_token, tl.min(tl.where(b_x == b_top, i_v + o_j, 2147483647), 0))
    else:
        b_from = tl.full([], 0, tl.uint32)
        b_edge = tl.full([], 0, tl.uint32)
        b_last = tl.full([], 2147483647, tl.int32)
        if TOP_K:
            b_from = threshold(
                p_logits, p_allowed, V, b_top, factor, b_from, top_k - 0.5, BLOCK, ALLOWED, True, BITS
            )
        if TOP_P:
            b_sums = tl.zeros([BLOCK], tl.float32)
            for i_v in tl.range(0, V, BLOCK):
                o_v = i_v + o_j
                b_x = logits_of(p_logits, p_allowed, o_v, V, ALLOWED)
                b_sums += weights_of(b_x, o_v, b_top, factor, b_from, b_edge, b_last)
            b_limit = tl.sum(b_sums, 0) * top_p
            b_edge = threshold(
                p_logits, p_allowed, V, b_top, factor, b_from, b_limit, BLOCK, ALLOWED, False, BITS
            )
            # of the tokens exactly at the edge, the first `b_ties` fit under the limit
            b_more = tl.zeros([BLOCK], tl.float32)
            b_weight = tl.zeros([BLOCK], tl.float32)
            for i_v in tl.range(0, V, BLOCK):
                b_x = logits_of(p_logits, p_allowed, i_v + o_j, V, ALLOWED)
                b_key = ordered(b_x)
                b_w = tl.exp2((b_x - b_top) * factor)
                b_more += tl.where(b_key > b_edge, b_w, 0.0)
                b_weight = tl.maximum(b_weight, tl.where(b_key == b_edge, b_w, 0.0))
            b_each = tl.max(b_weight, 0)
            b_ties = tl.floor((b_limit - tl.sum(b_more, 0)) / tl.where(b_each > 0.0, b_each, 1.0)) + 1.0
            b_ties = tl.where(b_each > 0.0, b_ties, float("inf"))
            b_seen = tl.full([], 0.0, tl.float32)
            for i_v in tl.range(0, V, BLOCK):
                o_v = i_v + o_j
                m_same = ordered(logits_of(p_logits, p_allowed, o_v, V, ALLOWED)) == b_edge
                b_same = tl.where(m_same, 1.0, 0.0)
                m_end = m_same & (b_seen + tl.cumsum(b_same, 0) >= b_ties)
                b_last = tl.minimum(b_last, tl.min(tl.where(m_end, o_v, 2147483647), 0))
                b_seen += tl.sum(b_same, 0)
        if HOW == 1:
            b_total = tl.full([], 0.0, tl.float32)
            b_final = tl.full([], 0, tl.int32)
            for i_v in tl.range(0, V, BLOCK):
                o_v = i_v + o_j
                b_x = logits_of(p_logits, p_allowed, o_v, V, ALLOWED)
                b_w = weights_of(b_x, o_v, b_top, factor, b_from, b_edge, b_last)
                b_total += tl.sum(b_w, 0)
                b_final = tl.maximum(b_final, tl.max(tl.where(b_w > 0.0, o_v, 0), 0))
            b_point = tl.load(p_numbers + i_b) * b_total.to(tl.float64)
            b_sum = tl.full([], 0.0, tl.float32)
            for i_v in tl.range(0, V, BLOCK):
                o_v = i_v + o_j
                b_x = logits_of(p_logits, p_allowed, o_v, V, ALLOWED)
                b_w = weights_of(b_x, o_v, b_top, factor, b_from, b_edge, b_last)
                m_past = ((b_sum + tl.cumsum(b_w, 0)).to(tl.float64) > b_point) & (b_w > 0.0)
                b_token = tl.minimum(b_token, tl.min(tl.where(m_past, o_v, 2147483647), 0))
                b_sum += tl.sum(b_w, 0)
            b_token = tl.minimum(b_token, b_final)
        else:
            b_best = tl.full([], -1.0, tl.float32)
            for i_v in tl.range(0, V, BLOCK):
                o_v = i_v + o_j
                b_x = logits_of(p_logits, p_allowed, o_v, V, ALLOWED)
                b_w = weights_of(b_x, o_v, b_top, factor, b_from, b_edge, b_last)
                b_q = tl.load(p_numbers + i_b * V + o_v, mask=o_v < V, other=1.0).to(tl.float32)
                b_race = tl.where(o_v < V, b_w / b_q, -1.0)
                b_winner = tl.max(b_race, 0)
                b_first = tl.min(tl.where(b_race == b_winner, o_v, 2147483647), 0)
                b_token = tl.where(b_winner > b_best, b_first, b_token)
                b_best = tl.maximum(b_best, b_winner)
    tl.store(p_token + i_b, b_token.to(tl.int64))


@triton.jit(do_not_specialize=COUNTS)
def sampling_advance_lanes_kernel(
    p_token, p_stop, p_left, p_newest, p_length, p_made, p_turn, B, entries, BLOCK: tl.constexpr
):
    """All lanes. Grid: (1,). p_made (n, B), p_stop (entries,), p_turn (1,), the others (B,)."""
    i_turn = tl.load(p_turn)
    for i_from in tl.range(0, B, BLOCK):
        o_b = i_from + tl.arange(0, BLOCK)
        m_b = o_b < B
        b_token = tl.load(p_token + o_b, mask=m_b, other=0)
        b_left = tl.load(p_left + o_b, mask=m_b, other=0)
        b_length = tl.load(p_length + o_b, mask=m_b, other=0)
        m_going = b_left > 0
        m_kept = m_going & (b_token >= 0)
        for i_stop in tl.range(0, entries):
            m_kept = m_kept & (b_token != tl.load(p_stop + i_stop))
        b_none = tl.where(m_going & (b_token < 0), -2, -1).to(tl.int64)
        tl.store(p_made + i_turn * B + o_b, tl.where(m_kept, b_token, b_none), mask=m_b)
        b_left = tl.where(m_kept, b_left - 1, 0)
        m_on = b_left > 0
        tl.store(p_left + o_b, b_left, mask=m_b)
        tl.store(p_newest + o_b, tl.where(m_on, b_token, 0), mask=m_b)
        tl.store(p_length + o_b, tl.where(m_on, b_length, 0), mask=m_b)
    tl.debug_barrier()  # all warps have read the turn
    tl.store(p_turn, i_turn + 1)


def _next_tokens(
    logits: Tensor,
    allowed: Tensor | None,
    numbers: Tensor | None,
    temperature: float,
    top_k: int,
    top_p: float,
    how: int,
) -> Tensor:
    rows, vocab = logits.shape
    tokens = logits.new_empty(rows, dtype=torch.int64)
    if not rows:
        return tokens
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    with torch.cuda.device_of(logits):
        sampling_next_tokens_kernel[(rows,)](
            logits, None if allowed is None else allowed.contiguous().view(torch.uint8),
            None if numbers is None else numbers.contiguous(), tokens,
            math.log2(math.e) / temperature, min(top_k, vocab), top_p, logits.stride(0), vocab,
            BLOCK=BLOCK, ALLOWED=allowed is not None, TOP_K=top_k > 0, TOP_P=top_p > 0, HOW=how,
            BITS=BITS[logits.dtype], num_warps=WARPS, num_stages=1, **LIMITS.get(family(logits.device), {}), **LAUNCH,
        )  # fmt: skip
    return tokens


def _next_tokens_fake(logits, allowed, numbers, temperature, top_k, top_p, how):
    return logits.new_empty(len(logits), dtype=torch.int64)


NEXT_TOKENS = register_op(
    "next_tokens(Tensor logits, Tensor? allowed, Tensor? numbers, float temperature, int top_k, float top_p, int how)"
    " -> Tensor",
    _next_tokens,
    fake=_next_tokens_fake,
)


def next_tokens_triton(logits: Tensor, choice: Choice, numbers: Tensor | None = None) -> Tensor:
    """As next_tokens_reference; in float32, float16 and bfloat16."""
    tokens: Tensor = NEXT_TOKENS(
        logits,
        choice.allowed,
        numbers,
        choice.temperature,
        choice.top_k,
        choice.top_p,
        HOWS.index(choice.how),
    )
    return tokens


def advance_lanes_triton(
    tokens: Tensor,
    stop_ids: Tensor,
    left: Tensor,
    newest: Tensor,
    lengths: Tensor,
    made: Tensor,
    turn: Tensor,
) -> None:
    """As advance_lanes_reference."""
    with torch.cuda.device_of(tokens):
        sampling_advance_lanes_kernel[(1,)](
            tokens, stop_ids, left, newest, lengths, made, turn, len(tokens), len(stop_ids),
            BLOCK=128, num_warps=4, num_stages=1, **LAUNCH,
        )  # fmt: skip
