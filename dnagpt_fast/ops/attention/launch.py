"""Attention on the GPU: the Triton kernels as torch ops with a backward.

Saved for the backward: q, k, v, o and one float per row (lse). Every launch depends on shapes alone, so the ops can be
captured in a CUDA graph after one call outside it: Triton compiles and loads a kernel at its first call, which CUDA
forbids during a capture.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from dnagpt_fast.ops.attention.backward_kernels import attention_dkdv_kernel, attention_dq_kernel
from dnagpt_fast.ops.attention.block_kernel import attention_block_backward_kernel
from dnagpt_fast.ops.attention.forward_kernel import attention_forward_kernel
from dnagpt_fast.ops.attention.tiles import HEAD_SIZES, block_for, tile_for
from dnagpt_fast.ops.registration import refuse_second_derivative, register_op
from dnagpt_fast.ops.triton_settings import LAUNCH, accumulator, family, product_constants

LOG2_E = math.log2(math.e)
LONGEST_STEP = 1 << 24  # elements from token to token: 127 such steps inside a tile fit in 32 bits


class Masks(NamedTuple):
    """The arguments that follow the tensors in every schema below (MASKS)."""

    scale: float
    causal: bool
    key_mask: Tensor | None  # bool (B, T)
    start: Tensor | None  # int32 (T,), as sequence_bounds returns it
    end: Tensor | None  # int32 (T,)

    def tensors(self) -> tuple[Tensor | None, ...]:
        """As the kernels read them: the key mask as bytes, all without gaps."""
        return (
            None if self.key_mask is None else self.key_mask.contiguous().view(torch.uint8),
            None if self.start is None else self.start.contiguous(),
            None if self.end is None else self.end.contiguous(),
        )

    def constants(self, q: Tensor) -> dict[str, object]:
        """The compile-time arguments that do not depend on the tile."""
        return {
            "K": q.shape[3],
            "CAUSAL": self.causal,
            "HAS_KEY_MASK": self.key_mask is not None,
            "HAS_SEQUENCES": self.start is not None,
            **product_constants(q),
            **LAUNCH,
        }


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
    """o of attention_triton from qkv (B, T, 3, H, K); the kernels write the gradient of qkv without a torch.stack."""
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
    """The first token of each token's sequence and the one after its last, int32 (T,) each; T and 0 outside every
    sequence. Does not wait for the device."""
    if cu_seqlens is None:
        return None, None
    t = torch.arange(tokens, device=cu_seqlens.device, dtype=torch.int32)
    sequence = torch.searchsorted(cu_seqlens, t, right=True)  # 1-based
    inside = (sequence > 0) & (sequence < cu_seqlens.shape[0])
    sequence = sequence.clamp(1, max(cu_seqlens.shape[0] - 1, 1))
    padded = torch.cat([cu_seqlens, cu_seqlens[-1:]])  # a single boundary needs a next one, too
    return padded[sequence - 1].where(inside, tokens), padded[sequence].where(inside, 0)


def token_major(like: Tensor) -> Tensor:
    """Empty (B, H, T, K) with the memory layout (B, T, H, K) of the projections before and after attention."""
    batch, heads, tokens, size = like.shape
    return like.new_empty(batch, tokens, heads, size).transpose(1, 2)


def as_rows(x: Tensor) -> Tensor:
    """x (B, H, T, K) in a layout that the kernels can read; copied only if it has another layout.

    The last stride is 1, the others are positive multiples of 16 elements, and the address is a multiple of 16 bytes.
    Then descriptors and 16-byte loads can read every view, and the same machine code runs for all strides.
    """
    *steps, last = x.stride()
    aligned = last == 1 and x.data_ptr() % 16 == 0 and all(step > 0 and step % 16 == 0 for step in steps)
    return x if aligned and steps[2] <= LONGEST_STEP else token_major(x).copy_(x)


def keys_for(k: Tensor, v: Tensor, rows: int, tma: bool) -> tuple[Tensor | TensorDescriptor, ...]:
    """k and v as the kernels take them: pointers, or with `tma` descriptors that load `rows` keys of one head."""
    if not tma:
        return k, v
    return tuple(
        TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, rows, x.shape[-1]]) for x in (k, v)
    )


def _forward(q: Tensor, k: Tensor, v: Tensor, *mask_arguments: Any) -> tuple[Tensor, Tensor]:
    masks = Masks(*mask_arguments)
    batch, heads, tokens, _ = q.shape
    o = token_major(q)
    lse = q.new_empty(q.shape[:3], dtype=accumulator(q))
    tile = tile_for("forward", q, tokens)
    grid = (triton.cdiv(tokens, tile.BT) * batch * heads,)
    if grid[0]:
        q, k, v = as_rows(q), as_rows(k), as_rows(v)
        with torch.cuda.device_of(q):
            attention_forward_kernel[grid](
                q, *keys_for(k, v, tile.BS, tile.tma), o, lse, *masks.tensors(), masks.scale * LOG2_E,
                *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *o.stride()[:3], heads, tokens,
                SPECIALIZE=tile.specialize, TMA=tile.tma, **masks.constants(q), **tile.launch,
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
    *mask_arguments: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = token_major(q), token_major(k), token_major(v)
    _backward_into(gradients, do, dlse, (q, k, v), o, lse, Masks(*mask_arguments))
    return gradients


def _packed_forward(qkv: Tensor, *mask_arguments: Any) -> tuple[Tensor, Tensor]:
    q, k, v = heads_of(qkv)
    return _forward(q, k, v, *mask_arguments)


def _packed_backward(
    do: Tensor, dlse: Tensor | None, qkv: Tensor, o: Tensor, lse: Tensor, *mask_arguments: Any
) -> Tensor:
    dqkv = qkv.new_empty(qkv.shape)
    _backward_into(heads_of(dqkv), do, dlse, heads_of(qkv), o, lse, Masks(*mask_arguments))
    return dqkv


def _backward_into(
    gradients: tuple[Tensor, ...],
    do: Tensor,
    dlse: Tensor | None,
    inputs: tuple[Tensor, ...],
    o: Tensor,
    lse: Tensor,
    masks: Masks,
) -> None:
    """Writes dq, dk, dv (the last stride is 1, the others may be any) for the inputs q, k, v."""
    dq, dk, dv = gradients
    batch, heads, tokens, _ = dq.shape
    if not lse.numel():
        return
    lse = lse.contiguous()
    dlse = None if dlse is None else dlse.contiguous()
    q, k, v, o, do = (as_rows(x) for x in (*inputs, o, do))
    scale, constants, mask_tensors = masks.scale, masks.constants(q), masks.tensors()
    with torch.cuda.device_of(q):
        if (block := block_for(q, tokens)) is not None:
            strides = (step for x in (q, k, v, o, do, dq, dk, dv) for step in x.stride()[:3])
            attention_block_backward_kernel[(batch * heads,)](
                q, k, v, o, do, dlse, lse, dq, dk, dv, *mask_tensors, scale, scale * LOG2_E, *strides, heads, tokens,
                HAS_DLSE=dlse is not None, BT=block.BT, num_warps=block.warps, num_stages=block.stages, **constants,
            )  # fmt: skip
            return
        delta = torch.empty_like(lse)
        tile = tile_for("dq", q, tokens)
        grid = (triton.cdiv(tokens, tile.BT) * batch * heads,)
        attention_dq_kernel[grid](
            q, k, v, o, do, dlse, lse, dq, delta, *mask_tensors, scale, scale * LOG2_E,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *o.stride()[:3], *do.stride()[:3], *dq.stride()[:3],
            heads, tokens, HAS_DLSE=dlse is not None, **constants, **tile.launch,
        )  # fmt: skip
        tile = tile_for("dkdv", q, tokens)
        grid = (triton.cdiv(tokens, tile.BS) * batch * heads,)
        attention_dkdv_kernel[grid](
            q, k, v, do, lse, delta, dk, dv, *mask_tensors, scale, scale * LOG2_E,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *do.stride()[:3], *dk.stride()[:3], *dv.stride()[:3],
            heads, tokens, WGMMA=family(q.device) == "hopper", **constants, **tile.launch,
        )  # fmt: skip


def _forward_fake(q, k, v, *mask_arguments):
    return token_major(q), q.new_empty(q.shape[:3], dtype=accumulator(q))


def _backward_fake(do, dlse, q, k, v, o, lse, *mask_arguments):
    return token_major(q), token_major(k), token_major(v)


def _packed_forward_fake(qkv, *mask_arguments):
    return _forward_fake(*heads_of(qkv))


def _packed_backward_fake(do, dlse, qkv, o, lse, *mask_arguments):
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
    """inputs: q, k, v or the packed qkv, then those of Masks."""
    *sources, ctx.scale, ctx.causal, key_mask, start, end = inputs
    ctx.save_for_backward(*sources, *output, key_mask, start, end)
    ctx.set_materialize_grads(False)


def _gradients_by(backward):
    def gradients(ctx, do, dlse):
        refuse_second_derivative("attention")
        *sources, o, lse, key_mask, start, end = ctx.saved_tensors
        if do is None:
            do = torch.zeros_like(o)
        found = backward(do, dlse, *sources, o, lse, ctx.scale, ctx.causal, key_mask, start, end)
        return *(found if isinstance(found, tuple) else (found,)), None, None, None, None, None

    return gradients


for _forward_op, _backward_op in ((FORWARD, BACKWARD), (PACKED_FORWARD, PACKED_BACKWARD)):
    torch.library.register_autograd(_forward_op.default, _gradients_by(_backward_op), setup_context=_save)
