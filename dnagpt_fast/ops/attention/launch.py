"""Attention on the GPU: the Triton kernels as torch ops with a backward.

Saved for the backward: q, k, v, o and one float a row (lse). Every launch depends on shapes alone, so the ops can be
captured in a CUDA graph.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from dnagpt_fast.ops.attention.backward_kernels import attention_dkdv_kernel, attention_dq_kernel
from dnagpt_fast.ops.attention.forward_kernel import attention_forward_kernel
from dnagpt_fast.ops.attention.tiles import HEAD_SIZES, tile_for
from dnagpt_fast.ops.triton_settings import accumulator

LOG2_E = math.log2(math.e)


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
    o, lse = torch.ops.dnagpt_fast.attention_forward(q, k, v, scale, causal, key_mask, start, end)
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
    o, _ = torch.ops.dnagpt_fast.attention_packed_forward(qkv, scale, causal, key_mask, start, end)
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


torch.library.define(
    "dnagpt_fast::attention_forward",
    "(Tensor q, Tensor k, Tensor v, float scale, bool causal, Tensor? key_mask, Tensor? start, Tensor? end)"
    " -> (Tensor o, Tensor lse)",
)
torch.library.define(
    "dnagpt_fast::attention_backward",
    "(Tensor do, Tensor? dlse, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, float scale, bool causal,"
    " Tensor? key_mask, Tensor? start, Tensor? end) -> (Tensor dq, Tensor dk, Tensor dv)",
)
torch.library.define(
    "dnagpt_fast::attention_packed_forward",
    "(Tensor qkv, float scale, bool causal, Tensor? key_mask, Tensor? start, Tensor? end) -> (Tensor o, Tensor lse)",
)
torch.library.define(
    "dnagpt_fast::attention_packed_backward",
    "(Tensor do, Tensor? dlse, Tensor qkv, Tensor o, Tensor lse, float scale, bool causal, Tensor? key_mask,"
    " Tensor? start, Tensor? end) -> Tensor dqkv",
)


def token_major(like: Tensor) -> Tensor:
    """Empty (B, H, T, K) laid out as (B, T, H, K): what the projections before and after attention read and write."""
    batch, heads, tokens, size = like.shape
    return like.new_empty(batch, tokens, heads, size).transpose(1, 2)


@torch.library.register_fake("dnagpt_fast::attention_forward")
def _forward_fake(q, k, v, scale, causal, key_mask, start, end):
    return token_major(q), q.new_empty(q.shape[:3], dtype=accumulator(q))


@torch.library.register_fake("dnagpt_fast::attention_backward")
def _backward_fake(do, dlse, q, k, v, o, lse, scale, causal, key_mask, start, end):
    return token_major(q), token_major(k), token_major(v)


@torch.library.register_fake("dnagpt_fast::attention_packed_forward")
def _packed_forward_fake(qkv, scale, causal, key_mask, start, end):
    return _forward_fake(*heads_of(qkv), scale, causal, key_mask, start, end)


@torch.library.register_fake("dnagpt_fast::attention_packed_backward")
def _packed_backward_fake(do, dlse, qkv, o, lse, scale, causal, key_mask, start, end):
    return qkv.new_empty(qkv.shape)


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
        with torch.cuda.device_of(q):
            tma = tile.tma and descriptor_fits(k) and descriptor_fits(v)
            attention_forward_kernel[grid](
                q, *keys_for(k, v, tile.BS, tma), o, lse, *_bytes(key_mask, start, end), scale * LOG2_E,
                *q.stride(), *k.stride(), *v.stride(), *o.stride()[:3], heads, tokens,
                TMA=tma, **_constants(q, causal, key_mask, start), **tile.launch,
            )  # fmt: skip
    return o, lse


torch.library.impl("dnagpt_fast::attention_forward", "CompositeExplicitAutograd", _forward)


@torch.library.impl("dnagpt_fast::attention_backward", "CompositeExplicitAutograd")
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


@torch.library.impl("dnagpt_fast::attention_packed_forward", "CompositeExplicitAutograd")
def _packed_forward(
    qkv: Tensor, scale: float, causal: bool, key_mask: Tensor | None, start: Tensor | None, end: Tensor | None
) -> tuple[Tensor, Tensor]:
    q, k, v = heads_of(qkv)
    return _forward(q, k, v, scale, causal, key_mask, start, end)


@torch.library.impl("dnagpt_fast::attention_packed_backward", "CompositeExplicitAutograd")
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


def descriptor_fits(x: Tensor) -> bool:
    """Can the tensor memory accelerator read x? It wants rows without gaps and 16-byte steps between them."""
    steps = x.stride()
    return (
        steps[-1] == 1 and x.data_ptr() % 16 == 0 and all(s and s * x.itemsize % 16 == 0 for s in steps[:-1])
    )


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
    delta = torch.empty_like(lse)
    constants = _constants(q, causal, key_mask, start)
    optional = _bytes(key_mask, start, end)
    dlse = None if dlse is None else dlse.contiguous()
    if not lse.numel():
        return
    with torch.cuda.device_of(q):
        tile = tile_for("dq", q, tokens)
        grid = (triton.cdiv(tokens, tile.BT) * batch * heads,)
        attention_dq_kernel[grid](
            q, k, v, o, do, dlse, lse, dq, delta, *optional, scale, scale * LOG2_E,
            *q.stride(), *k.stride(), *v.stride(), *o.stride(), *do.stride(), *dq.stride()[:3], heads, tokens,
            HAS_DLSE=dlse is not None, **constants, **tile.launch,
        )  # fmt: skip
        tile = tile_for("dkdv", q, tokens)
        grid = (triton.cdiv(tokens, tile.BS) * batch * heads,)
        attention_dkdv_kernel[grid](
            q, k, v, do, lse, delta, dk, dv, *optional, scale, scale * LOG2_E,
            *q.stride(), *k.stride(), *v.stride(), *do.stride(), *dk.stride()[:3], *dv.stride()[:3], heads, tokens,
            **constants, **tile.launch,
        )  # fmt: skip


def _constants(q: Tensor, causal: bool, key_mask: Tensor | None, start: Tensor | None) -> dict[str, object]:
    """The compile-time arguments that no tile gives. fp32 is exact unless torch was told that TF32 will do."""
    exact = q.dtype == torch.float64 or torch.get_float32_matmul_precision() == "highest"
    return {
        "K": q.shape[3],
        "CAUSAL": causal,
        "HAS_KEY_MASK": key_mask is not None,
        "HAS_SEQUENCES": start is not None,
        "PRECISION": "ieee" if exact else "tf32",
        "ACC": tl.float64 if q.dtype == torch.float64 else tl.float32,
    }


def _bytes(key_mask: Tensor | None, start: Tensor | None, end: Tensor | None) -> tuple[Tensor | None, ...]:
    return (None if key_mask is None else key_mask.contiguous().view(torch.uint8), start, end)


def _save(ctx, inputs, output):
    """inputs: q, k, v or the packed qkv, then scale, causal, key_mask, start, end."""
    *sources, ctx.scale, ctx.causal, key_mask, start, end = inputs
    ctx.save_for_backward(*sources, *output, key_mask, start, end)
    ctx.set_materialize_grads(False)


def _gradients_by(op):
    def gradients(ctx, do, dlse):
        *sources, o, lse, key_mask, start, end = ctx.saved_tensors
        if do is None:
            do = torch.zeros_like(o)
        made = op(do, dlse, *sources, o, lse, ctx.scale, ctx.causal, key_mask, start, end)
        return *(made if isinstance(made, tuple) else (made,)), None, None, None, None, None

    return gradients


for _form in ("attention", "attention_packed"):
    torch.library.register_autograd(
        f"dnagpt_fast::{_form}_forward",
        _gradients_by(getattr(torch.ops.dnagpt_fast, f"{_form}_backward")),
        setup_context=_save,
    )
