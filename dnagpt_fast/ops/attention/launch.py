"""Attention on the GPU: the Triton kernels as torch ops with a backward.

Saved for the backward: q, k, v, o and one float a row (lse). Every launch depends on shapes alone, so the ops can be
captured in a CUDA graph, after one call outside it: Triton compiles and loads a kernel at its first call, which CUDA
forbids during a capture.
"""

import math

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from dnagpt_fast.ops.attention.backward_kernels import attention_dkdv_kernel, attention_dq_kernel
from dnagpt_fast.ops.attention.forward_kernel import attention_forward_kernel
from dnagpt_fast.ops.attention.tiles import HEAD_SIZES, tile_for
from dnagpt_fast.ops.registration import refuse_second_derivative, register_op
from dnagpt_fast.ops.triton_settings import LAUNCH, accumulator, product_constants

LOG2_E = math.log2(math.e)
LONGEST_STEP = 1 << 24  # elements from token to token: 127 such steps inside a tile fit in 32 bits


def heads_of(qkv: Tensor) -> tuple[Tensor, ...]:
    """(B, T, 3, H, K) -> q, k, v, views (B, H, T, K)."""
    return qkv.permute(2, 0, 3, 1, 4).unbind(0)


def attention_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    causal: bool = True,
    key_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As attention_reference, differentiable through o and lse. Raises ValueError for head sizes not in HEAD_SIZES."""
    check_head_size(q.shape[-1])
    start, end = sequence_bounds(cu_seqlens, q.shape[2])
    o, lse = FORWARD(q, k, v, scale, causal, key_mask, start, end)
    return o, lse


def attention_packed_triton(
    qkv: Tensor,
    *,
    scale: float,
    causal: bool = True,
    key_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """o of attention_triton from qkv (B, T, 3, H, K), whose gradient the kernels write in one piece: no torch.stack."""
    check_head_size(qkv.shape[-1])
    start, end = sequence_bounds(cu_seqlens, qkv.shape[1])
    o, _ = PACKED_FORWARD(qkv, scale, causal, key_mask, start, end)
    return o


def check_head_size(size: int) -> None:
    if size not in HEAD_SIZES:
        raise ValueError(
            f"attention: the Triton kernels take head sizes {HEAD_SIZES}, not {size}; "
            'use dispatch.using(attention="sdpa")'
        )


def sequence_bounds(cu_seqlens: Tensor | None, tokens: int) -> tuple[Tensor | None, Tensor | None]:
    """First and one-past-last token of each token's sequence, int32 (T,); (T, 0) outside every sequence. No sync."""
    if cu_seqlens is None:
        return None, None
    t = torch.arange(tokens, device=cu_seqlens.device, dtype=torch.int32)
    sequence = torch.searchsorted(cu_seqlens, t, right=True)  # 1-based
    inside = (sequence > 0) & (sequence < cu_seqlens.shape[0])
    sequence = sequence.clamp(1, max(cu_seqlens.shape[0] - 1, 1))
    padded = torch.cat([cu_seqlens, cu_seqlens[-1:]])  # a lone boundary still has a next one
    return padded[sequence - 1].where(inside, tokens), padded[sequence].where(inside, 0)


def token_major(like: Tensor) -> Tensor:
    """Empty (B, H, T, K) laid out as (B, T, H, K): what the projections before and after attention read and write."""
    batch, heads, tokens, size = like.shape
    return like.new_empty(batch, tokens, heads, size).transpose(1, 2)


def as_rows(x: Tensor) -> Tensor:
    """x (B, H, T, K) as the kernels read it, a copy only where it has another layout.

    Heads without gaps, each step to the next one a positive multiple of 16 elements, the first address one of 16 bytes:
    then descriptors and 16-byte loads serve every view, and the same machine code runs whatever the caller's strides.
    """
    *steps, last = x.stride()
    aligned = last == 1 and x.data_ptr() % 16 == 0 and all(step > 0 and step % 16 == 0 for step in steps)
    return x if aligned and steps[2] <= LONGEST_STEP else token_major(x).copy_(x)


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    causal: bool,
    key_mask: Tensor | None,
    start: Tensor | None,
    end: Tensor | None,
) -> tuple[Tensor, Tensor]:
    batch, heads, tokens, _ = q.shape
    o = token_major(q)
    lse = q.new_empty(q.shape[:3], dtype=accumulator(q))
    tile = tile_for("forward", q, tokens)
    grid = (triton.cdiv(tokens, tile.BT) * batch * heads,)
    if grid[0]:
        q, k, v = as_rows(q), as_rows(k), as_rows(v)
        with torch.cuda.device_of(q):
            attention_forward_kernel[grid](
                q, *keys_for(k, v, tile.BS, tile.tma), o, lse, *_optional(key_mask, start, end), scale * LOG2_E,
                *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *o.stride()[:3], heads, tokens,
                SPECIALIZE=tile.specialize, TMA=tile.tma, **_constants(q, causal, key_mask, start), **tile.launch,
            )  # fmt: skip
    return o, lse


def _backward(
    do: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    scale: float,
    causal: bool,
    key_mask: Tensor | None,
    start: Tensor | None,
    end: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = token_major(q), token_major(k), token_major(v)
    backward_into(dq, dk, dv, do, dlse, q, k, v, o, lse, scale, causal, key_mask, start, end)
    return dq, dk, dv


def _packed_forward(
    qkv: Tensor, scale: float, causal: bool, key_mask: Tensor | None, start: Tensor | None, end: Tensor | None
) -> tuple[Tensor, Tensor]:
    q, k, v = heads_of(qkv)
    return _forward(q, k, v, scale, causal, key_mask, start, end)


def _packed_backward(
    do: Tensor,
    dlse: Tensor | None,
    qkv: Tensor,
    o: Tensor,
    lse: Tensor,
    scale: float,
    causal: bool,
    key_mask: Tensor | None,
    start: Tensor | None,
    end: Tensor | None,
) -> Tensor:
    dqkv = qkv.new_empty(qkv.shape)
    (dq, dk, dv), (q, k, v) = heads_of(dqkv), heads_of(qkv)
    backward_into(dq, dk, dv, do, dlse, q, k, v, o, lse, scale, causal, key_mask, start, end)
    return dqkv


def keys_for(k: Tensor, v: Tensor, rows: int, tma: bool) -> tuple[Tensor | TensorDescriptor, ...]:
    """k and v as the kernels take them: pointers, or descriptors that fetch `rows` keys of one head."""
    if not tma:
        return k, v
    return tuple(
        TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, rows, x.shape[-1]]) for x in (k, v)
    )


def backward_into(
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    do: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    scale: float,
    causal: bool,
    key_mask: Tensor | None,
    start: Tensor | None,
    end: Tensor | None,
) -> None:
    """Fill dq, dk, dv (any strides but the last, which is 1)."""
    batch, heads, tokens, _ = q.shape
    if not lse.numel():
        return
    lse = lse.contiguous()
    delta = torch.empty_like(lse)
    constants = _constants(q, causal, key_mask, start)
    optional = _optional(key_mask, start, end)
    dlse = None if dlse is None else dlse.contiguous()
    q, k, v, o, do = (as_rows(x) for x in (q, k, v, o, do))
    with torch.cuda.device_of(q):
        tile = tile_for("dq", q, tokens)
        grid = (triton.cdiv(tokens, tile.BT) * batch * heads,)
        attention_dq_kernel[grid](
            q, k, v, o, do, dlse, lse, dq, delta, *optional, scale, scale * LOG2_E,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *o.stride()[:3], *do.stride()[:3], *dq.stride()[:3],
            heads, tokens, HAS_DLSE=dlse is not None, **constants, **tile.launch,
        )  # fmt: skip
        tile = tile_for("dkdv", q, tokens)
        grid = (triton.cdiv(tokens, tile.BS) * batch * heads,)
        attention_dkdv_kernel[grid](
            q, k, v, do, lse, delta, dk, dv, *optional, scale, scale * LOG2_E,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *do.stride()[:3], *dk.stride()[:3], *dv.stride()[:3],
            heads, tokens, **constants, **tile.launch,
        )  # fmt: skip


def _constants(q: Tensor, causal: bool, key_mask: Tensor | None, start: Tensor | None) -> dict[str, object]:
    """The compile-time arguments that no tile gives."""
    return {
        "K": q.shape[3],
        "CAUSAL": causal,
        "HAS_KEY_MASK": key_mask is not None,
        "HAS_SEQUENCES": start is not None,
        **product_constants(q),
        **LAUNCH,
    }


def _optional(key_mask: Tensor | None, start: Tensor | None, end: Tensor | None) -> tuple[Tensor | None, ...]:
    """The mask as bytes and the bounds, as rows without gaps."""
    return (
        None if key_mask is None else key_mask.contiguous().view(torch.uint8),
        None if start is None else start.contiguous(),
        None if end is None else end.contiguous(),
    )


def _forward_fake(q, k, v, scale, causal, key_mask, start, end):
    return token_major(q), q.new_empty(q.shape[:3], dtype=accumulator(q))


def _backward_fake(do, dlse, q, k, v, o, lse, scale, causal, key_mask, start, end):
    return token_major(q), token_major(k), token_major(v)


def _packed_forward_fake(qkv, scale, causal, key_mask, start, end):
    q, k, v = heads_of(qkv)
    return _forward_fake(q, k, v, scale, causal, key_mask, start, end)


def _packed_backward_fake(do, dlse, qkv, o, lse, scale, causal, key_mask, start, end):
    return qkv.new_empty(qkv.shape)


MASKS = "float scale, bool causal, Tensor? key_mask, Tensor? start, Tensor? end"
FORWARD = register_op(
    f"attention_forward(Tensor q, Tensor k, Tensor v, {MASKS}) -> (Tensor o, Tensor lse)",
    _forward,
    fake=_forward_fake,
)
BACKWARD = register_op(
    "attention_backward(Tensor do, Tensor? dlse, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse,"
    f" {MASKS}) -> (Tensor dq, Tensor dk, Tensor dv)",
    _backward,
    fake=_backward_fake,
)
PACKED_FORWARD = register_op(
    f"attention_packed_forward(Tensor qkv, {MASKS}) -> (Tensor o, Tensor lse)",
    _packed_forward,
    fake=_packed_forward_fake,
)
PACKED_BACKWARD = register_op(
    f"attention_packed_backward(Tensor do, Tensor? dlse, Tensor qkv, Tensor o, Tensor lse, {MASKS}) -> Tensor dqkv",
    _packed_backward,
    fake=_packed_backward_fake,
)


def _save(ctx, inputs, output):
    """inputs: q, k, v or the packed qkv, then scale, causal, key_mask, start, end."""
    *sources, ctx.scale, ctx.causal, key_mask, start, end = inputs
    ctx.save_for_backward(*sources, *output, key_mask, start, end)
    ctx.set_materialize_grads(False)


def _gradients_by(backward):
    def gradients(ctx, do, dlse):
        refuse_second_derivative("attention")
        *sources, o, lse, key_mask, start, end = ctx.saved_tensors
        if do is None:
            do = torch.zeros_like(o)
        made = backward(do, dlse, *sources, o, lse, ctx.scale, ctx.causal, key_mask, start, end)
        return *(made if isinstance(made, tuple) else (made,)), None, None, None, None, None

    return gradients


for _forward_op, _backward_op in ((FORWARD, BACKWARD), (PACKED_FORWARD, PACKED_BACKWARD)):
    torch.library.register_autograd(_forward_op.default, _gradients_by(_backward_op), setup_context=_save)
