"""The combined loss on the GPU with its gradient in the forward pass: the library's products and one kernel of ours.

A chunk of rows at a time, as chunked.py does on the CPU: z = x W^T (rounded once to the dtype of the products), one
kernel that turns z into d loss / d z in place, then dX = dz W and dW += dz^T x with sums in fp32. The counts that scale
the rows are taken first. This is the minimum of three products; the kernels of launch.py recompute z and need four, but
they hold no z and round it nowhere, so evaluation, losses by row, the tile skip and the base-level loss run there.
Every launch depends on shapes alone. Memory besides inputs and gradients: MEMORY_BYTES, and a few floats per row.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from dnagpt_fast.ops import triton_settings
from dnagpt_fast.ops.combined_loss import launch
from dnagpt_fast.ops.combined_loss.forward_kernels import (
    combined_loss_combine_kernel,
    combined_loss_finish_kernel,
)
from dnagpt_fast.ops.combined_loss.launch import combined_loss_triton, rest_of, without_gaps
from dnagpt_fast.ops.combined_loss.row_kernels import combined_loss_count_kernel, combined_loss_softmax_kernel
from dnagpt_fast.ops.combined_loss.settings import (
    ROW_SCHEMA,
    LossInputs,
    LossParts,
    LossSettings,
    RowSettings,
)
from dnagpt_fast.ops.combined_loss.tiles import TILE_ROWS, launch_of
from dnagpt_fast.ops.registration import refuse_second_derivative, register_op

BLOCK, WARPS = 1024, 8  # columns that a program takes at a time
LEAST_VOCAB = 8192
"""By the rule, fewer entries than this go to the recomputing kernels. Measured on an H200 with 32,768 rows of width
768: these take 0.54 of the time with 4,103 entries and 1.55 times it with 19,564; straight lines through the times
cross at about 8,600."""
ALIGNED = 64  # columns: rows of the workspace begin at multiples of 128 bytes, as the products want them


def product(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
    """out (+)= a b, with sums in float32 or wider; `out` may be wider than a and b."""
    if out.dtype == a.dtype:
        if add:
            torch.addmm(out, a, b, out=out)
        else:
            torch.mm(a, b, out=out)
    elif a.device.type == "cuda":
        if add:
            torch.ops.aten.addmm.dtype_out(out, a, b, out.dtype, out=out)
        else:
            torch.ops.aten.mm.dtype_out(a, b, out.dtype, out=out)
    else:  # torch has products with wider results on CUDA only
        product(a.to(out.dtype), b.to(out.dtype), out, add=add)


def rows_a_chunk(rows: int, vocab: int, itemsize: int) -> int:
    """Rows of a chunk, whose logits fit into MEMORY_BYTES: tiles of 128 rows, in chunks of nearly equal size."""
    tile_bytes = TILE_ROWS * aligned(vocab) * itemsize
    return (
        min(rows, TILE_ROWS * launch.tiles_a_chunk(triton.cdiv(rows, TILE_ROWS), tile_bytes, 0))
        if rows
        else 1
    )


def aligned(vocab: int) -> int:
    return triton.cdiv(vocab, ALIGNED) * ALIGNED


def _forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    row_kind: Tensor | None,
    gc_prediction: Tensor | None,
    gc_target: Tensor | None,
    gc_mask: Tensor | None,
    order_weight: float,
    gc_weight: float,
    mean: bool,
    gc_gradient: bool,
    want_hidden: bool,
    want_weight: bool,
    want_bias: bool,
    hidden_dtype: torch.dtype,
    weight_dtype: torch.dtype,
    *row_settings: Any,
) -> tuple[Tensor, ...]:
    triton_settings.check_may_run("combined_loss", hidden, "chunked")
    settings = RowSettings(*row_settings)
    rows_total, vocab = hidden.shape[0], weight.shape[0]
    hidden, weight, targets = hidden.contiguous(), weight.contiguous(), targets.contiguous()
    bias, row_kind, gc_prediction, gc_target, mask = map(
        without_gaps, (bias, row_kind, gc_prediction, gc_target, gc_mask)
    )
    outputs = _empty_outputs(
        hidden, weight, bias, gc_prediction, gc_gradient, want_hidden, want_weight, want_bias, hidden_dtype,
        weight_dtype,
    )  # fmt: skip
    total, next_token, order_loss, gc, rows, log_probs, scales, d_gc, d_hidden, d_weight, d_bias = outputs
    dtype = rows.dtype
    weight_sum = d_weight if d_weight.dtype == dtype else d_weight.new_empty(d_weight.shape, dtype=dtype)
    bias_sum = d_bias.new_zeros(d_bias.shape, dtype=dtype)
    lse, target_logit, row_max, row_sum = rows.new_empty(4, rows_total).unbind()
    logit_sum = rows.new_empty(rows_total if settings.label_smoothing else 0)
    row_tiles = triton.cdiv(rows_total, TILE_ROWS)
    block_sums = rows.new_empty(row_tiles, 4)
    chunk = rows_a_chunk(rows_total, vocab, hidden.element_size())
    workspace = hidden.new_empty(chunk, aligned(vocab))[:, :vocab]
    nothing = rows.new_empty(0)
    _, place = launch.tile_order(vocab, hidden.device, 0, settings.rest > 0)
    has_kind, smooth = row_kind is not None, settings.label_smoothing != 0.0
    reduce = launch_of("reduce", hidden, settings, bias=bias is not None)
    if want_weight and not rows_total:
        weight_sum.zero_()
    with torch.cuda.device_of(hidden):
        combined_loss_count_kernel[(1,)](
            targets, row_kind, scales, rows_total, settings.ignore_index, order_weight,
            HAS_KIND=has_kind, MEAN=mean, BLOCK=1024, **reduce,
        )  # fmt: skip
        for first in range(0, rows_total, chunk):
            x = hidden[first : first + chunk]
            z = workspace[: len(x)]
            if bias is None:
                product(x, weight.t(), z)
            else:
                torch.addmm(bias.to(z.dtype), x, weight.t(), out=z)
            combined_loss_softmax_kernel[(len(x),)](
                z, targets, row_kind, scales, row_max, row_sum, logit_sum, target_logit,
                vocab, z.stride(0), first, settings.ignore_index, settings.label_smoothing, settings.z_loss,
                settings.soft_cap or 1.0, *rest_of(settings), settings.entries(vocab),
                HAS_KIND=has_kind, SOFT_CAP=settings.soft_cap is not None, SMOOTH=smooth,
                REST=settings.rest > 0, ACC=reduce["ACC"], BLOCK=BLOCK, num_warps=WARPS, num_stages=1,
                **triton_settings.LAUNCH,
            )  # fmt: skip
            if want_hidden:
                part = d_hidden[first : first + chunk]
                wide = part if part.dtype == dtype else rows.new_empty(part.shape)
                product(z, weight, wide)
                if wide is not part:
                    part.copy_(wide.mul_(scales[0]))  # scaled before it is rounded
            if want_weight:
                product(z.t(), x, weight_sum, add=first > 0)
            if want_bias:
                bias_sum += z.sum(0, dtype=dtype)
        if rows_total:
            combined_loss_combine_kernel[(row_tiles,)](
                targets, row_kind, place, row_max, row_sum, logit_sum, nothing, target_logit, nothing,
                lse, rows, log_probs, nothing, block_sums, nothing,
                rows_total, vocab, settings.ignore_index, 1, 1, settings.label_smoothing, settings.z_loss, 0.0,
                settings.entries(vocab), 0.0, HAS_KIND=has_kind, SMOOTH=smooth, SKIP=False, K=0,
                BT=TILE_ROWS, BV=TILE_ROWS, NARROW=1, **reduce,
            )  # fmt: skip
        combined_loss_finish_kernel[(1,)](
            block_sums, gc_prediction, gc_target, mask, total, next_token, order_loss, gc, scales, d_gc,
            row_tiles, 0 if gc_prediction is None else len(gc_prediction), order_weight, gc_weight,
            MEAN=mean, HAS_GC=gc_prediction is not None, HAS_GC_MASK=mask is not None,
            GC_GRADIENT=gc_gradient, BLOCK=256, **reduce,
        )  # fmt: skip
    if want_weight and weight_sum is not d_weight:
        d_weight.copy_(weight_sum.mul_(scales[0]))
    if want_bias:
        d_bias.copy_(bias_sum if d_bias.dtype == dtype else bias_sum.mul_(scales[0]))
    return outputs


def _empty_outputs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gc_prediction: Tensor | None,
    gc_gradient: bool,
    want_hidden: bool,
    want_weight: bool,
    want_bias: bool,
    hidden_dtype: torch.dtype,
    weight_dtype: torch.dtype,
) -> tuple[Tensor, ...]:
    dtype = triton_settings.accumulator(hidden)
    samples = len(gc_prediction) if gc_prediction is not None and gc_gradient else 0
    bias_dtype = weight_dtype if bias is None else bias.dtype
    return (
        *(hidden.new_empty((), dtype=dtype) for _ in range(4)),
        *(hidden.new_empty(hidden.shape[0], dtype=dtype) for _ in range(2)),
        hidden.new_empty(2, dtype=dtype),
        hidden.new_empty(samples, dtype=dtype),
        hidden.new_empty(hidden.shape if want_hidden else (0, 0), dtype=hidden_dtype),
        weight.new_empty(weight.shape if want_weight else (0, 0), dtype=weight_dtype),
        weight.new_empty(weight.shape[0] if want_bias else 0, dtype=bias_dtype),
    )


def _forward_fake(
    hidden, weight, bias, targets, row_kind, gc_prediction, gc_target, gc_mask, order_weight, gc_weight, mean,
    gc_gradient, *wanted_and_settings,
):  # fmt: skip
    return _empty_outputs(hidden, weight, bias, gc_prediction, gc_gradient, *wanted_and_settings[:5])


register_op(
    "combined_loss_products(Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, Tensor? row_kind,"
    " Tensor? gc_prediction, Tensor? gc_target, Tensor? gc_mask, float order_weight, float gc_weight, bool mean,"
    " bool gc_gradient, bool want_hidden, bool want_weight, bool want_bias, ScalarType hidden_dtype,"
    f" ScalarType weight_dtype, {ROW_SCHEMA})"
    " -> (Tensor total, Tensor next_token, Tensor order, Tensor gc, Tensor rows, Tensor log_probs, Tensor scales,"
    " Tensor d_gc, Tensor d_hidden, Tensor d_weight, Tensor d_bias)",
    _forward,
    fake=_forward_fake,
)


class _WithGradients(torch.autograd.Function):
    """total, and the results for logs; the gradients are made with them."""

    @staticmethod
    def forward(
        ctx, hidden, weight, bias, gc_prediction, targets, row_kind, gc_target, gc_mask, compute, settings
    ):
        want = [x is not None and x.requires_grad for x in (hidden, weight, bias)]
        needs_gc = gc_prediction is not None and gc_prediction.requires_grad
        total, next_token, order, gc, _, log_probs, scales, *grads = (
            torch.ops.dnagpt_fast.combined_loss_products(
                hidden.to(compute), weight.to(compute), bias, targets, row_kind, gc_prediction, gc_target, gc_mask,
                settings.order_weight, settings.gc_weight, settings.reduction == "mean", needs_gc, *want,
                hidden.dtype, weight.dtype, *settings.rows,
            )
        )  # fmt: skip
        ctx.want = [*want, needs_gc]
        ctx.save_for_backward(scales, *grads)
        others = (next_token, order, gc, log_probs)
        ctx.mark_non_differentiable(*others)
        ctx.set_materialize_grads(False)
        return total, *others

    @staticmethod
    def backward(ctx, grad, *_):
        if grad is None:
            return (None,) * 10
        refuse_second_derivative("combined_loss")
        scales, d_gc, *rows = ctx.saved_tensors
        factor = scales[0] * grad  # gradients that are as wide as their sums are not scaled yet
        saved = [(x, factor if x.dtype == scales.dtype else grad) for x in rows] + [(d_gc, grad)]
        if torch.compiler.is_compiling():
            scaled = [x * by.to(x.dtype) for x, by in saved]
        else:  # in place: no second (V, D) gradient; a second backward then fails, by autograd's own version check
            scaled = [x.mul_(by) for x, by in saved]
        grads = [x if want else None for x, want in zip(scaled, ctx.want, strict=True)]
        return *grads, None, None, None, None, None, None


def combined_loss_products(inputs: LossInputs, settings: LossSettings) -> LossParts:
    """The loss with its gradient in the forward pass; under autocast the products run in autocast's dtype.

    Where this has no gain or no code, the recomputing kernels run: without a gradient of the rows, for losses by row,
    with the tile skip and with the base-level loss.
    """
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs[:4])
    if not wanted or settings.reduction == "none" or settings.rows.may_skip or settings.rows.base_level:
        return combined_loss_triton(inputs, settings)
    device = inputs.hidden.device.type
    compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else inputs.hidden.dtype
    parts = _WithGradients.apply(
        inputs.hidden, inputs.weight, inputs.bias, inputs.gc_prediction, inputs.targets, inputs.row_kind,
        inputs.gc_target, inputs.gc_mask, compute, settings,
    )  # fmt: skip
    return LossParts(*parts)


def combined_loss_by_rule(inputs: LossInputs, settings: LossSettings) -> LossParts:
    """The faster of both ways for the size of the vocabulary."""
    few = inputs.weight.shape[0] < LEAST_VOCAB
    return (combined_loss_triton if few else combined_loss_products)(inputs, settings)
