"""The combined loss on the GPU: the Triton kernels as two torch ops, forward and backward, and their autograd.

Saved for the backward: the inputs, logsumexp (R,), two scales, and with the tile skip one flag a tile. Every launch
depends on shapes alone and nothing is read back, so the ops go into a CUDA graph. Memory beyond the gradients:
WORKSPACE_BYTES, the (V, D) sum in fp32 where the weight is narrower, and a few floats a row.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from dnagpt_fast.batch import ROW_NEXT_TOKEN, ROW_ORDER
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
from dnagpt_fast.ops.combined_loss.reference import gc_loss
from dnagpt_fast.ops.combined_loss.tiles import TILE_ROWS, tile_order
from dnagpt_fast.ops.triton_settings import architecture

WORKSPACE_BYTES = 60 * 2**20  # of dz: 1,536 rows of 19,584 in bf16
PROGRAMS = 512  # the forward splits the vocabulary until there are so many: some three for each SM of the largest cards
MOST_SPLITS = 16

_library = torch.library.Library("dnagpt_fast", "FRAGMENT")
_library.define(
    "combined_loss_forward(Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, Tensor? row_kind,"
    " Tensor? gc_prediction, Tensor? gc_target, Tensor? gc_mask, float order_weight, float gc_weight, int ignore_index,"
    " bool mean, float label_smoothing, float z_loss, float? soft_cap, float? skip_below, bool gc_gradient)"
    " -> (Tensor total, Tensor next_token, Tensor order, Tensor gc, Tensor rows, Tensor log_probs, Tensor lse,"
    " Tensor scales, Tensor d_gc, Tensor keep)"
)
_library.define(
    "combined_loss_backward(Tensor grad, Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, Tensor? row_kind,"
    " Tensor lse, Tensor scales, Tensor keep, int ignore_index, float label_smoothing, float z_loss, float? soft_cap,"
    " bool want_hidden, bool want_weight, bool want_bias, ScalarType hidden_dtype, ScalarType weight_dtype)"
    " -> (Tensor d_hidden, Tensor d_weight, Tensor d_bias)"
)


def accumulator(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _tile(x: Tensor) -> int:
    """Rows, vocabulary entries and width of a tile: 128; 64 where products in fp32 fill the registers."""
    return TILE_ROWS if x.element_size() == 2 else TILE_ROWS // 2


def _tile_counts(x: Tensor, weight: Tensor) -> tuple[int, int]:
    return -(-x.shape[0] // _tile(x)), -(-weight.shape[0] // _tile(x))


def _constants(x: Tensor, step: int) -> dict[str, Any]:
    """Compile-time arguments of every kernel with a product; fp32 is exact unless torch was told that TF32 will do."""
    exact = x.dtype == torch.float64 or torch.get_float32_matmul_precision() == "highest"
    return {
        "PRECISION": "ieee" if exact else "tf32",
        "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "EVEN_D": x.shape[1] % step == 0,
        "BT": _tile(x),
        "BV": _tile(x),
    }


def _launch(x: Tensor) -> dict[str, Any]:
    """Three stages of two 16 KiB tiles fit every NVIDIA card, two fit AMD's 64 KiB. Fused multiply-add is pinned, since
    Triton 3.10 turns it off by default."""
    stages = 2 if architecture(x.device).startswith("gfx") else 3
    return {"num_warps": 8, "num_stages": stages, "enable_fp_fusion": True}


def _step(x: Tensor) -> int:
    """Length of a product's inner step: 64 halves or 32 floats, 128 bytes of a row."""
    return 128 // x.element_size()


def _dx_step(x: Tensor, skip: bool) -> int:
    """The same of the dX pass: half of it where a whole one spills 2 registers, with the skip on sm_120."""
    return _step(x) // 2 if skip and architecture(x.device).startswith("sm_12") else _step(x)


def _check_device(x: Tensor) -> None:
    if x.device.type == "cpu" and not triton.knobs.runtime.interpret:
        raise RuntimeError(
            "combined_loss=triton on CPU tensors needs Triton's interpreter: set TRITON_INTERPRET=1 before triton is "
            'imported, or use dispatch.using(combined_loss="chunked")'
        )


@torch.library.impl(_library, "combined_loss_forward", "CompositeExplicitAutograd")
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
    ignore_index: int,
    mean: bool,
    label_smoothing: float,
    z_loss: float,
    soft_cap: float | None,
    skip_below: float | None,
    gc_gradient: bool,
) -> tuple[Tensor, ...]:
    _check_device(hidden)
    (rows_total, width), vocab = hidden.shape, weight.shape[0]
    row_tiles, tiles = _tile_counts(hidden, weight)
    splits = max(1, min(MOST_SPLITS, tiles, PROGRAMS // max(row_tiles, 1)))
    tiles_a_split = triton.cdiv(tiles, splits)
    splits = triton.cdiv(tiles, tiles_a_split)
    skip = skip_below is not None and label_smoothing == 0.0
    outputs = _empty_outputs(hidden, gc_prediction, gc_gradient, row_tiles, tiles, skip)
    total, next_token, order_loss, gc, rows, log_probs, lse, scales, d_gc, keep = outputs
    part_max, part_sum = rows.new_empty(2, splits, rows_total).unbind()
    logit_sum = rows.new_empty(splits if label_smoothing else 0, rows_total)
    target_logit = torch.empty_like(rows)
    tile_max = rows.new_empty(tiles if skip else 0, rows_total, dtype=torch.float32)
    block_sums = rows.new_empty(row_tiles, 4)
    order, place = tile_order(vocab, hidden.device)
    mask = None if gc_mask is None else gc_mask.contiguous().view(torch.uint8)
    kinds: dict[str, Any] = {"HAS_KIND": row_kind is not None, "SMOOTH": label_smoothing != 0.0, "SKIP": skip}
    with torch.cuda.device_of(hidden):
        if rows_total:
            combined_loss_forward_kernel[(row_tiles, splits)](
                hidden, weight, bias, targets, row_kind, order, place,
                part_max, part_sum, logit_sum, target_logit, tile_max,
                rows_total, vocab, width, ignore_index, soft_cap or 1.0, tiles, tiles_a_split,
                HAS_BIAS=bias is not None, SOFT_CAP=soft_cap is not None, **kinds,
                **_constants(hidden, _step(hidden)), BD=_step(hidden), **_launch(hidden),
            )  # fmt: skip
            combined_loss_combine_kernel[(row_tiles,)](
                targets, row_kind, place, part_max, part_sum, logit_sum, target_logit, tile_max,
                lse, rows, log_probs, block_sums, keep,
                rows_total, vocab, ignore_index, splits, tiles, label_smoothing, z_loss,
                math.log(skip_below or 1.0),
                **kinds, ACC=_constants(hidden, 1)["ACC"], BT=_tile(hidden), num_warps=4, enable_fp_fusion=True,
            )  # fmt: skip
        combined_loss_finish_kernel[(1,)](
            block_sums, gc_prediction, gc_target, mask, total, next_token, order_loss, gc, scales, d_gc,
            row_tiles, 0 if gc_prediction is None else len(gc_prediction), order_weight, gc_weight,
            MEAN=mean, HAS_GC=gc_prediction is not None, HAS_GC_MASK=mask is not None,
            GC_GRADIENT=gc_gradient, ACC=_constants(hidden, 1)["ACC"], BLOCK=256, num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
    return outputs


def _empty_outputs(
    hidden: Tensor, gc_prediction: Tensor | None, gc_gradient: bool, row_tiles: int, tiles: int, skip: bool
) -> tuple[Tensor, ...]:
    dtype = accumulator(hidden)
    scalars = [hidden.new_empty((), dtype=dtype) for _ in range(4)]
    per_row = [hidden.new_empty(hidden.shape[0], dtype=dtype) for _ in range(3)]
    samples = len(gc_prediction) if gc_prediction is not None and gc_gradient else 0
    keep = hidden.new_empty((row_tiles, tiles) if skip else (0, 0), dtype=torch.int32)
    return (
        *scalars,
        *per_row,
        hidden.new_empty(2, dtype=dtype),
        hidden.new_empty(samples, dtype=dtype),
        keep,
    )


@torch.library.register_fake("dnagpt_fast::combined_loss_forward", lib=_library)
def _forward_fake(
    hidden, weight, bias, targets, row_kind, gc_prediction, gc_target, gc_mask, order_weight, gc_weight, ignore_index,
    mean, label_smoothing, z_loss, soft_cap, skip_below, gc_gradient,
):  # fmt: skip
    row_tiles, tiles = _tile_counts(hidden, weight)
    skip = skip_below is not None and label_smoothing == 0.0
    return _empty_outputs(hidden, gc_prediction, gc_gradient, row_tiles, tiles, skip)


@torch.library.impl(_library, "combined_loss_backward", "CompositeExplicitAutograd")
def _backward(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    row_kind: Tensor | None,
    lse: Tensor,
    scales: Tensor,
    keep: Tensor,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    soft_cap: float | None,
    want_hidden: bool,
    want_weight: bool,
    want_bias: bool,
    hidden_dtype: torch.dtype,
    weight_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """grad: 0-d of `total`, or (R,) of the rows."""
    _check_device(hidden)
    (rows_total, width), vocab, dtype = hidden.shape, weight.shape[0], accumulator(hidden)
    row_tiles, tiles = _tile_counts(hidden, weight)
    d_hidden, d_weight, d_bias = _backward_fake(
        grad, hidden, weight, bias, targets, row_kind, lse, scales, keep, ignore_index, label_smoothing, z_loss,
        soft_cap, want_hidden, want_weight, want_bias, hidden_dtype, weight_dtype,
    )  # fmt: skip
    if not rows_total:
        return d_hidden, d_weight.zero_(), d_bias.zero_()
    tile, step = _tile(hidden), _step(hidden)
    chunk = max(1, min(row_tiles, WORKSPACE_BYTES // (tile * tiles * tile * hidden.element_size())))
    chunk = triton.cdiv(row_tiles, triton.cdiv(row_tiles, chunk))  # even chunks
    workspace = hidden.new_empty(chunk * tile, tiles * tile)
    several = row_tiles > chunk
    # the running sums: the gradients themselves where they are wide enough
    weight_sum = (
        d_weight if d_weight.dtype == dtype else weight.new_empty(weight.shape if several else 0, dtype=dtype)
    )
    bias_sum = d_bias if d_bias.dtype == dtype else weight.new_empty(vocab if several else 0, dtype=dtype)
    order, place = tile_order(vocab, hidden.device)
    width_tiles = triton.cdiv(width, tile)
    kinds: dict[str, Any] = {"PER_ROW": grad.dim() == 1, "SKIP": keep.numel() > 0}
    grad = grad.contiguous()
    with torch.cuda.device_of(hidden):
        for first in range(0, row_tiles, chunk):
            here = min(chunk, row_tiles - first)
            combined_loss_dz_kernel[(here, tiles)](
                hidden, weight, bias, targets, row_kind, order, place, lse, scales, grad, keep, workspace,
                rows_total, vocab, width, ignore_index, label_smoothing, z_loss, soft_cap or 1.0,
                first * tile, tiles,
                HAS_BIAS=bias is not None, HAS_KIND=row_kind is not None, SOFT_CAP=soft_cap is not None,
                **kinds, **_constants(hidden, step), BD=step, **_launch(hidden),
            )  # fmt: skip
            if want_hidden:
                combined_loss_dx_kernel[(here, width_tiles)](
                    workspace, weight, order, scales, grad, keep, d_hidden,
                    rows_total, vocab, width, first * tile, tiles,
                    **kinds, **_constants(hidden, tile), BD=tile, BS=_dx_step(hidden, kinds["SKIP"]), **_launch(hidden),
                )  # fmt: skip
            if want_weight or want_bias:
                combined_loss_dw_kernel[(tiles, width_tiles if want_weight else 1)](
                    workspace, hidden, order, scales, grad, keep, weight_sum, bias_sum, d_weight, d_bias,
                    rows_total, vocab, width, first * tile, here, tiles,
                    WANT_WEIGHT=want_weight, WANT_BIAS=want_bias, FIRST=first == 0, LAST=first + here == row_tiles,
                    **kinds, **_constants(hidden, tile), BD=tile, BS=step, **_launch(hidden),
                )  # fmt: skip
    return d_hidden, d_weight, d_bias


@torch.library.register_fake("dnagpt_fast::combined_loss_backward", lib=_library)
def _backward_fake(
    grad, hidden, weight, bias, targets, row_kind, lse, scales, keep, ignore_index, label_smoothing, z_loss, soft_cap,
    want_hidden, want_weight, want_bias, hidden_dtype, weight_dtype,
):  # fmt: skip
    bias_dtype = weight_dtype if bias is None else bias.dtype
    return (
        hidden.new_empty(hidden.shape if want_hidden else (0, 0), dtype=hidden_dtype),
        weight.new_empty(weight.shape if want_weight else (0, 0), dtype=weight_dtype),
        weight.new_empty(weight.shape[0] if want_bias else 0, dtype=bias_dtype),
    )


class _CombinedLoss(torch.autograd.Function):
    """total (or the rows, of which the parts are made outside), and what only the log and the backward need."""

    @staticmethod
    def forward(
        ctx, hidden, weight, bias, gc_prediction, targets, row_kind, gc_target, gc_mask, compute, settings
    ):
        per_row, order_weight, gc_weight, ignore_index, mean, *shape = settings
        x, w = hidden.to(compute).contiguous(), weight.to(compute).contiguous()
        needs_gc = gc_prediction is not None and gc_prediction.requires_grad
        outputs = torch.ops.dnagpt_fast.combined_loss_forward(
            x, w, bias, targets, row_kind, gc_prediction, gc_target, gc_mask,
            order_weight, gc_weight, ignore_index, mean, *shape, needs_gc,
        )  # fmt: skip
        total, next_token, order, gc, rows, log_probs, lse, scales, d_gc, keep = outputs
        ctx.save_for_backward(x, w, bias, targets, row_kind, lse, scales, keep, d_gc)
        ctx.ignore_index, ctx.shape = ignore_index, shape[:3]
        ctx.dtypes = hidden.dtype, weight.dtype
        main = rows if per_row else total
        others = (next_token, order, gc, log_probs)
        ctx.mark_non_differentiable(*others)
        ctx.set_materialize_grads(False)
        return main, *others

    @staticmethod
    def backward(ctx, grad, *_):
        if grad is None:
            return (None,) * 10
        if not torch.compiler.is_compiling() and torch.is_grad_enabled():
            raise RuntimeError(
                "combined_loss has no second derivative (create_graph=True); "
                'use dispatch.using(combined_loss="reference")'
            )
        *saved, d_gc = ctx.saved_tensors
        want = ctx.needs_input_grad[:3]
        grads: list[Tensor | None] = [None] * 3
        if any(want):
            made = torch.ops.dnagpt_fast.combined_loss_backward(
                grad, *saved, ctx.ignore_index, *ctx.shape, *want, *ctx.dtypes
            )
            grads = [g if w else None for g, w in zip(made, want, strict=True)]
        return *grads, d_gc * grad if ctx.needs_input_grad[3] else None, None, None, None, None, None, None


def combined_loss_triton(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None,
    row_kind: Tensor | None,
    gc_prediction: Tensor | None,
    gc_target: Tensor | None,
    gc_mask: Tensor | None,
    order_weight: float,
    gc_weight: float,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    z_loss: float,
    soft_cap: float | None,
    skip_below: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Arguments as in `ops.combined_loss`; (total, next_token, order, gc, log_probs), in fp32 or wider.

    Under autocast the products run in autocast's dtype, as Linear's would; gradients come in the inputs' own dtypes.
    """
    device = hidden.device.type
    compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    per_row = reduction == "none"
    settings = (
        per_row, order_weight, gc_weight, ignore_index, reduction == "mean",
        label_smoothing, z_loss, soft_cap, skip_below,
    )  # fmt: skip
    gc_inputs = (None, None, None) if per_row else (gc_prediction, gc_target, gc_mask)
    main, next_token, order, gc, log_probs = _CombinedLoss.apply(
        hidden, weight, bias, gc_inputs[0], targets.contiguous(), row_kind, *gc_inputs[1:], compute, settings
    )
    if not per_row:
        return main, next_token, order, gc, log_probs
    counted = targets != ignore_index
    is_next = counted if row_kind is None else counted & (row_kind == ROW_NEXT_TOKEN)
    is_order = torch.zeros_like(counted) if row_kind is None else counted & (row_kind == ROW_ORDER)
    next_token, order = main * is_next, main * is_order
    gc = gc_loss(gc_prediction, gc_target, gc_mask, reduction, main)
    return next_token + order_weight * order, next_token, order, gc, log_probs
