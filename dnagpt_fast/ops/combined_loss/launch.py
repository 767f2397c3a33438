"""The combined loss on the GPU: the Triton kernels as two torch ops, forward and backward, and their autograd.

Saved for the backward: the inputs, logsumexp (R,), two scales, with the tile skip one flag per tile, and with the
base-level loss eight floats per row. Every launch depends on shapes alone and the host reads no result, so a CUDA graph
can capture the ops. Memory besides the gradients: MEMORY_BYTES, and a few floats per row.
"""

import math
from typing import Any

import torch
import triton
from torch import Tensor

from dnagpt_fast.ops import triton_settings
from dnagpt_fast.ops.combined_loss.backward_kernels import (
    combined_loss_dw_kernel,
    combined_loss_dx_kernel,
    combined_loss_dz_kernel,
)
from dnagpt_fast.ops.combined_loss.forward_kernels import (
    combined_loss_combine_kernel,
    combined_loss_finish_kernel,
    combined_loss_forward_kernel,
)
from dnagpt_fast.ops.combined_loss.reference import gc_loss, kinds_of_rows
from dnagpt_fast.ops.combined_loss.settings import (
    ROW_SCHEMA,
    LossInputs,
    LossParts,
    LossSettings,
    RowSettings,
)
from dnagpt_fast.ops.combined_loss.tiles import launch_of, tile_edge, tile_order
from dnagpt_fast.ops.registration import refuse_second_derivative, register_op

# for dz, and for the sum of dW if its gradient is narrower than fp32: 117 MiB are 3,072 rows of 19,584 in bf16
MEMORY_BYTES = 118 * 2**20
# The forward splits the vocabulary so that up to this many programs run: about three per SM of the largest cards.
PROGRAMS = 512
MOST_SPLITS = 16
BASES = 8  # the kernels' columns for the bases of a k-mer


def _tile_counts(x: Tensor, weight: Tensor) -> tuple[int, int]:
    tile = tile_edge(x)
    return triton.cdiv(x.shape[0], tile), triton.cdiv(weight.shape[0], tile)


def without_gaps(x: Tensor | None) -> Tensor | None:
    """A bool mask as bytes, any other tensor unchanged, without gaps: the kernels have no strides."""
    if x is None:
        return None
    return x.contiguous().view(torch.uint8) if x.dtype == torch.bool else x.contiguous()


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
    *row_settings: Any,
) -> tuple[Tensor, ...]:
    triton_settings.check_may_run("combined_loss", hidden, "chunked")
    settings = RowSettings(*row_settings)
    (rows_total, width), vocab = hidden.shape, weight.shape[0]
    hidden, weight, targets = hidden.contiguous(), weight.contiguous(), targets.contiguous()
    bias, row_kind, gc_prediction, gc_target, mask = map(
        without_gaps, (bias, row_kind, gc_prediction, gc_target, gc_mask)
    )
    forward, reduce = (
        launch_of(which, hidden, settings, bias=bias is not None) for which in ("forward", "reduce")
    )
    (row_tiles, whole_tiles), tiles = _tile_counts(hidden, weight), triton.cdiv(vocab, forward["BV"])
    splits = max(1, min(MOST_SPLITS, tiles, PROGRAMS // max(row_tiles, 1)))
    tiles_a_split = triton.cdiv(tiles, splits)
    splits = triton.cdiv(tiles, tiles_a_split)
    outputs = _empty_outputs(hidden, weight, gc_prediction, gc_gradient, settings)
    total, next_token, order_loss, gc, rows, log_probs, lse, base_pull, scales, d_gc, keep = outputs
    part_max, part_sum = rows.new_empty(2, splits, rows_total).unbind()
    logit_sum = rows.new_empty(splits if settings.label_smoothing else 0, rows_total)
    base_sum = rows.new_empty(splits if settings.base_level else 0, rows_total, BASES)
    target_logit = torch.empty_like(rows)
    tile_max = rows.new_empty(tiles if settings.may_skip else 0, rows_total, dtype=torch.float32)
    block_sums = rows.new_empty(row_tiles, 4)
    order, place = tile_order(vocab, hidden.device, settings.k, settings.rest > 0)
    kinds: dict[str, Any] = {
        "HAS_KIND": row_kind is not None,
        "SMOOTH": settings.label_smoothing != 0.0,
        "SKIP": settings.may_skip,
        "K": settings.k,
    }
    with torch.cuda.device_of(hidden):
        if rows_total:
            combined_loss_forward_kernel[(row_tiles, splits)](
                hidden, weight, bias, targets, row_kind, order, place,
                part_max, part_sum, logit_sum, base_sum, target_logit, tile_max,
                rows_total, vocab, width, settings.ignore_index, settings.soft_cap or 1.0, *rest_of(settings), tiles,
                tiles_a_split, HAS_BIAS=bias is not None, SOFT_CAP=settings.soft_cap is not None,
                REST=settings.rest > 0, **kinds, **forward,
            )  # fmt: skip
            combined_loss_combine_kernel[(row_tiles,)](
                targets, row_kind, place, part_max, part_sum, logit_sum, base_sum, target_logit, tile_max,
                lse, rows, log_probs, base_pull, block_sums, keep,
                rows_total, vocab, settings.ignore_index, splits, whole_tiles, settings.label_smoothing,
                settings.z_loss, settings.base_level, settings.entries(vocab),
                math.log(settings.skip_below or 1.0), **kinds, BT=forward["BT"], BV=forward["BV"],
                NARROW=tile_edge(hidden) // forward["BV"], **reduce,
            )  # fmt: skip
        combined_loss_finish_kernel[(1,)](
            block_sums, gc_prediction, gc_target, mask, total, next_token, order_loss, gc, scales, d_gc,
            row_tiles, 0 if gc_prediction is None else len(gc_prediction), order_weight, gc_weight,
            MEAN=mean, HAS_GC=gc_prediction is not None, HAS_GC_MASK=mask is not None,
            GC_GRADIENT=gc_gradient, BLOCK=256, **reduce,
        )  # fmt: skip
    return outputs


def rest_of(settings: RowSettings) -> tuple[float, float]:
    """The number of entries that the last one represents, and its logarithm, which is added to the logit."""
    return float(settings.rest), math.log(settings.rest or 1)


def _empty_outputs(
    hidden: Tensor, weight: Tensor, gc_prediction: Tensor | None, gc_gradient: bool, settings: RowSettings
) -> tuple[Tensor, ...]:
    dtype = triton_settings.accumulator(hidden)
    scalars = [hidden.new_empty((), dtype=dtype) for _ in range(4)]
    per_row = [hidden.new_empty(hidden.shape[0], dtype=dtype) for _ in range(3)]
    samples = len(gc_prediction) if gc_prediction is not None and gc_gradient else 0
    flags = _tile_counts(hidden, weight) if settings.may_skip else (0, 0)
    return (
        *scalars,
        *per_row,
        hidden.new_empty(hidden.shape[0] if settings.base_level else 0, BASES, dtype=dtype),
        hidden.new_empty(2, dtype=dtype),
        hidden.new_empty(samples, dtype=dtype),
        hidden.new_empty(flags, dtype=torch.int32),
    )


def _forward_fake(
    hidden, weight, bias, targets, row_kind, gc_prediction, gc_target, gc_mask, order_weight, gc_weight, mean,
    gc_gradient, *row_settings,
):  # fmt: skip
    return _empty_outputs(hidden, weight, gc_prediction, gc_gradient, RowSettings(*row_settings))


def _backward(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    row_kind: Tensor | None,
    lse: Tensor,
    base_pull: Tensor,
    scales: Tensor,
    keep: Tensor,
    want_hidden: bool,
    want_weight: bool,
    want_bias: bool,
    hidden_dtype: torch.dtype,
    weight_dtype: torch.dtype,
    *row_settings: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """grad: 0-d of `total`, or (R,) of the rows."""
    triton_settings.check_may_run("combined_loss", hidden, "chunked")
    settings = RowSettings(*row_settings)
    (rows_total, width), vocab = hidden.shape, weight.shape[0]
    hidden, weight, targets, grad = (x.contiguous() for x in (hidden, weight, targets, grad))
    bias, row_kind = without_gaps(bias), without_gaps(row_kind)
    row_tiles, tiles = _tile_counts(hidden, weight)
    d_hidden, d_weight, d_bias = _empty_gradients(
        hidden, weight, bias, want_hidden, want_weight, want_bias, hidden_dtype, weight_dtype
    )
    if not rows_total:
        return d_hidden, d_weight.zero_(), d_bias.zero_()
    tile, dtype = tile_edge(hidden), triton_settings.accumulator(hidden)
    # the running sums are the gradients themselves if those are wide enough
    own_sums = d_weight.dtype != dtype
    sum_bytes = d_weight.numel() * dtype.itemsize if own_sums else 0
    chunk = tiles_a_chunk(row_tiles, tile * tiles * tile * hidden.element_size(), sum_bytes)
    several = row_tiles > chunk
    workspace = hidden.new_empty(chunk * tile, tiles * tile)
    weight_sum = d_weight.new_empty(d_weight.shape if several else 0, dtype=dtype) if own_sums else d_weight
    bias_sum = d_bias if d_bias.dtype == dtype else d_bias.new_empty(vocab if several else 0, dtype=dtype)
    order, place = tile_order(vocab, hidden.device, settings.k, settings.rest > 0)
    width_tiles = triton.cdiv(width, tile)
    kinds: dict[str, Any] = {"PER_ROW": grad.dim() == 1, "SKIP": settings.may_skip}
    dz, dx, dw = (launch_of(which, hidden, settings, bias=bias is not None) for which in ("dz", "dx", "dw"))
    dz_tiles = tiles * tile // dz["BV"]
    with torch.cuda.device_of(hidden):
        for first in range(0, row_tiles, chunk):
            here = min(chunk, row_tiles - first)
            combined_loss_dz_kernel[(here, dz_tiles)](
                hidden, weight, bias, targets, row_kind, order, place, lse, base_pull, scales, grad, keep, workspace,
                rows_total, vocab, width, settings.ignore_index, settings.label_smoothing, settings.z_loss,
                settings.base_level, settings.soft_cap or 1.0, *rest_of(settings), settings.entries(vocab),
                first * tile, dz_tiles,
                HAS_BIAS=bias is not None, HAS_KIND=row_kind is not None, SOFT_CAP=settings.soft_cap is not None,
                SMOOTH=settings.label_smoothing != 0.0, REST=settings.rest > 0, K=settings.k,
                NARROW=tile // dz["BV"], **kinds, **dz,
            )  # fmt: skip
            if want_hidden:
                combined_loss_dx_kernel[(here, width_tiles)](
                    workspace, weight, order, scales, grad, keep, d_hidden,
                    rows_total, vocab, width, first * tile, tiles, **kinds, **dx,
                )  # fmt: skip
            if want_weight or want_bias:
                combined_loss_dw_kernel[(tiles, width_tiles if want_weight else 1)](
                    workspace, hidden, order, scales, grad, keep, weight_sum, bias_sum, d_weight, d_bias,
                    rows_total, vocab, width, first * tile, here, tiles,
                    WANT_WEIGHT=want_weight, WANT_BIAS=want_bias, FIRST=first == 0, LAST=first + here == row_tiles,
                    **kinds, **dw,
                )  # fmt: skip
    return d_hidden, d_weight, d_bias


def tiles_a_chunk(row_tiles: int, tile_bytes: int, sum_bytes: int) -> int:
    """Row tiles per chunk, whose dz fits into MEMORY_BYTES less the sum of dW; the chunks are of nearly equal size."""
    most = max(1, min(row_tiles, (MEMORY_BYTES - sum_bytes) // tile_bytes))
    return triton.cdiv(row_tiles, triton.cdiv(row_tiles, most))


def _empty_gradients(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    want_hidden: bool,
    want_weight: bool,
    want_bias: bool,
    hidden_dtype: torch.dtype,
    weight_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    bias_dtype = weight_dtype if bias is None else bias.dtype
    return (
        hidden.new_empty(hidden.shape if want_hidden else (0, 0), dtype=hidden_dtype),
        weight.new_empty(weight.shape if want_weight else (0, 0), dtype=weight_dtype),
        weight.new_empty(weight.shape[0] if want_bias else 0, dtype=bias_dtype),
    )


def _backward_fake(
    grad, hidden, weight, bias, targets, row_kind, lse, base_pull, scales, keep, want_hidden, want_weight, want_bias,
    hidden_dtype, weight_dtype, *row_settings,
):  # fmt: skip
    return _empty_gradients(
        hidden, weight, bias, want_hidden, want_weight, want_bias, hidden_dtype, weight_dtype
    )


register_op(
    "combined_loss_forward(Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, Tensor? row_kind,"
    " Tensor? gc_prediction, Tensor? gc_target, Tensor? gc_mask, float order_weight, float gc_weight, bool mean,"
    f" bool gc_gradient, {ROW_SCHEMA})"
    " -> (Tensor total, Tensor next_token, Tensor order, Tensor gc, Tensor rows, Tensor log_probs, Tensor lse,"
    " Tensor base_pull, Tensor scales, Tensor d_gc, Tensor keep)",
    _forward,
    fake=_forward_fake,
)
register_op(
    "combined_loss_backward(Tensor grad, Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, Tensor? row_kind,"
    " Tensor lse, Tensor base_pull, Tensor scales, Tensor keep, bool want_hidden, bool want_weight, bool want_bias,"
    f" ScalarType hidden_dtype, ScalarType weight_dtype, {ROW_SCHEMA})"
    " -> (Tensor d_hidden, Tensor d_weight, Tensor d_bias)",
    _backward,
    fake=_backward_fake,
)


class _CombinedLoss(torch.autograd.Function):
    """total (or the rows, whose parts are computed by the caller), and the results for logs and the backward pass."""

    @staticmethod
    def forward(
        ctx, hidden, weight, bias, gc_prediction, targets, row_kind, gc_target, gc_mask, compute, settings
    ):
        x, w = hidden.to(compute).contiguous(), weight.to(compute).contiguous()
        needs_gc = gc_prediction is not None and gc_prediction.requires_grad
        mean = settings.reduction == "mean"
        total, next_token, order, gc, rows, log_probs, lse, base_pull, scales, d_gc, keep = (
            torch.ops.dnagpt_fast.combined_loss_forward(
                x, w, bias, targets, row_kind, gc_prediction, gc_target, gc_mask,
                settings.order_weight, settings.gc_weight, mean, needs_gc, *settings.rows,
            )
        )  # fmt: skip
        ctx.save_for_backward(x, w, bias, targets, row_kind, lse, base_pull, scales, keep, d_gc)
        ctx.settings, ctx.dtypes = settings.rows, (hidden.dtype, weight.dtype)
        others = (next_token, order, gc, log_probs)
        ctx.mark_non_differentiable(*others)
        ctx.set_materialize_grads(False)
        return rows if settings.reduction == "none" else total, *others

    @staticmethod
    def backward(ctx, grad, *_):
        if grad is None:
            return (None,) * 10
        refuse_second_derivative("combined_loss")
        *saved, d_gc = ctx.saved_tensors
        want = ctx.needs_input_grad[:3]
        grads: list[Tensor | None] = [None] * 3
        if any(want):
            made = torch.ops.dnagpt_fast.combined_loss_backward(
                grad, *saved, *want, *ctx.dtypes, *ctx.settings
            )
            grads = [g if w else None for g, w in zip(made, want, strict=True)]
        return *grads, d_gc * grad if ctx.needs_input_grad[3] else None, None, None, None, None, None, None


def combined_loss_triton(inputs: LossInputs, settings: LossSettings) -> LossParts:
    """The loss with the Triton kernels; under autocast the products run in autocast's dtype."""
    device = inputs.hidden.device.type
    compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else inputs.hidden.dtype
    per_row = settings.reduction == "none"
    gc_inputs = (None, None, None) if per_row else inputs[5:]
    main, next_token, order, gc, log_probs = _CombinedLoss.apply(
        inputs.hidden, inputs.weight, inputs.bias, gc_inputs[0], inputs.targets, inputs.row_kind, *gc_inputs[1:],
        compute, settings,
    )  # fmt: skip
    if not per_row:
        return LossParts(main, next_token, order, gc, log_probs)
    next_token, order = (main * mask for mask in kinds_of_rows(inputs, settings.rows.ignore_index))
    return LossParts(
        next_token + settings.order_weight * order,
        next_token,
        order,
        gc_loss(inputs, "none", main),
        log_probs,
    )
