"""The combined loss on CPU: a chunk of rows at a time, its gradient made while its probabilities are at hand.

Same equations as combined_loss_reference.py. Of the (R, V) logits only one chunk of CHUNK_BYTES exists. With
p = softmax(z) and g_r = d total / d row_r, known before the first chunk,
    d z_rv = g_r ((1 + 2 z_loss lse_r) p_rv - (1 - e) [v = target_r] - e / V) (1 - (z_rv / soft_cap)^2)
    d x = dz W,  d W = dz^T x (in fp32),  d b = sum_r dz:  three matrix products in all, the least there can be.
Rows that are not counted are never multiplied at all; without a gradient wanted only the first product runs.
"""

from typing import Any

import torch

from dnagpt_fast.batch import ROW_NEXT_TOKEN, ROW_ORDER
from dnagpt_fast.ops.combined_loss.reference import gc_loss
from dnagpt_fast.ops.combined_loss.tiles import TILE_ROWS, TILE_VOCAB, tile_order

CHUNK_BYTES = 16 * 2**20  # 214 rows at V = 19,564: near a last-level cache, and products run at full speed

_library = torch.library.Library("dnagpt_fast", "FRAGMENT")
_library.define(
    "combined_loss_rows(Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, Tensor? row_scale,"
    " int ignore_index, float label_smoothing, float z_loss, float? soft_cap, float? skip_below,"
    " bool want_hidden, bool want_weight, bool want_bias) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.impl(_library, "combined_loss_rows", "CPU")
def _rows(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    row_scale: torch.Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    soft_cap: float | None,
    skip_below: float | None,
    want_hidden: bool,
    want_weight: bool,
    want_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss and log-probability of each row (0 where ignored); with row_scale the wanted gradients, else empty ones."""
    vocab = weight.shape[0]
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    counted = targets != ignore_index
    outside = counted & ((targets < 0) | (targets >= vocab))
    if outside.any():
        row = int(outside.nonzero()[0])
        raise IndexError(f"combined_loss: row {row} has target {int(targets[row])}: wanted 0..{vocab - 1}")
    counted_rows = None if counted.all() else counted.nonzero()[:, 0]
    n_rows = len(targets) if counted_rows is None else len(counted_rows)
    loss, log_probs = hidden.new_zeros(len(targets), dtype=dtype), hidden.new_zeros(len(targets), dtype=dtype)
    d_hidden = torch.zeros_like(hidden) if row_scale is not None and want_hidden else hidden.new_empty(0)
    want_weight, want_bias = want_weight and row_scale is not None, want_bias and row_scale is not None
    d_weight = weight.new_zeros(weight.shape if want_weight else 0, dtype=dtype)
    d_bias = weight.new_zeros(vocab if want_bias else 0, dtype=dtype)
    chunk = max(16, min(n_rows, CHUNK_BYTES // (vocab * dtype.itemsize)))
    buffer = hidden.new_empty((chunk, vocab), dtype=dtype)
    least = None if label_smoothing else skip_below  # with label smoothing every entry has a gradient
    tile_of = tile_order(vocab)[1].long() // TILE_VOCAB
    with torch.autocast("cpu", enabled=False):
        weight_wide, bias_wide = weight.to(dtype), None if bias is None else bias.to(dtype)
        for start in range(0, n_rows, chunk):
            rows = slice(start, min(start + chunk, n_rows))
            here: Any = rows if counted_rows is None else counted_rows[rows]
            x, target = hidden[here].to(dtype), targets[here][:, None]
            z = buffer[: len(x)]
            if bias_wide is None:
                torch.mm(x, weight_wide.t(), out=z)
            else:
                torch.addmm(bias_wide, x, weight_wide.t(), out=z)
            slope = None
            if soft_cap is not None:
                z.div_(soft_cap).tanh_()
                slope = None if row_scale is None else 1 - z.square()
                z.mul_(soft_cap)
            peak = z.amax(1, keepdim=True)
            target_z = z.gather(1, target)
            mean_z = z.mean(1, keepdim=True) if label_smoothing else 0.0
            z.sub_(peak).exp_()
            total = z.sum(1, keepdim=True)
            lse = total.log() + peak
            row_loss = (
                lse - (1 - label_smoothing) * target_z - label_smoothing * mean_z + z_loss * lse.square()
            )
            loss[here] = row_loss[:, 0]
            log_probs[here] = (target_z - lse)[:, 0]
            if row_scale is None:
                continue
            scale = row_scale[here][:, None].to(dtype)
            kept = None if least is None else kept_tiles(z, total * least, target)
            z.mul_(scale * (1 + 2 * z_loss * lse) / total)
            if label_smoothing:
                z.sub_(scale * (label_smoothing / vocab))
            z.scatter_add_(1, target, scale * (label_smoothing - 1))
            if slope is not None:
                z.mul_(slope)
            if kept is not None:
                for z_rows, kept_rows in zip(z.split(TILE_ROWS), kept[:, tile_of], strict=True):
                    z_rows.mul_(kept_rows)
            if want_hidden:
                d_hidden[here] = torch.mm(z, weight_wide).to(hidden.dtype)
            if want_weight:
                d_weight.addmm_(z.t(), x)
            if want_bias:
                d_bias.add_(z.sum(0))
    return (
        loss,
        log_probs,
        d_hidden,
        d_weight.to(weight.dtype),
        d_bias.to(weight.dtype if bias is None else bias.dtype),
    )


def kept_tiles(values: torch.Tensor, below: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Tiles, in the kernels' order, whose gradient is made: one of `values` (R, V) reaches its row's `below` (R, 1), or
    is at the row's `target` (R, 1). bool (row tiles, vocabulary tiles); a NaN keeps its tile."""
    order, place = tile_order(values.shape[1])
    reaches = [
        ~(rows < least).all(0)
        for rows, least in zip(values.split(TILE_ROWS), below.split(TILE_ROWS), strict=True)
    ]
    in_order = torch.stack(reaches)[:, order.long()]
    kept = torch.stack([columns.any(1) for columns in in_order.split(TILE_VOCAB, 1)], 1)
    kept[torch.arange(len(values)) // TILE_ROWS, place[target[:, 0]].long() // TILE_VOCAB] = True
    return kept


@torch.library.register_fake("dnagpt_fast::combined_loss_rows", lib=_library)
def _rows_fake(
    hidden, weight, bias, targets, row_scale, ignore_index, label_smoothing, z_loss, soft_cap, skip_below,
    want_hidden, want_weight, want_bias,
):  # fmt: skip
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    rows = hidden.new_empty(targets.shape, dtype=dtype)
    grad = row_scale is not None
    return (
        rows,
        torch.empty_like(rows),
        torch.empty_like(hidden) if grad and want_hidden else hidden.new_empty(0),
        weight.new_empty(weight.shape if grad and want_weight else 0),
        (weight if bias is None else bias).new_empty(weight.shape[0] if grad and want_bias else 0),
    )


def refuse_double_backward() -> None:
    """once_differentiable, in a form that torch.compile can trace."""
    if not torch.compiler.is_compiling() and torch.is_grad_enabled():
        raise RuntimeError(
            'combined_loss has no second derivative (create_graph=True); use dispatch.using(combined_loss="reference")'
        )


class _ScaledSum(torch.autograd.Function):
    """sum_r row_scale_r row_r, with its gradient made in the forward pass; beside it the rows, without gradient."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, row_scale, grad_wanted, settings):
        want = [t is not None and t.requires_grad and grad_wanted for t in (hidden, weight, bias)]
        rows, log_probs, *grads = torch.ops.dnagpt_fast.combined_loss_rows(
            hidden, weight, bias, targets, row_scale if any(want) else None, *settings, *want
        )
        ctx.want = want
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(rows, log_probs)
        ctx.set_materialize_grads(False)
        return (rows * row_scale).sum(), rows, log_probs

    @staticmethod
    def backward(ctx, grad, *_):
        if grad is None:
            return (None,) * 7
        refuse_double_backward()
        if torch.compiler.is_compiling():
            scaled = [saved * grad.to(saved.dtype) for saved in ctx.saved_tensors]
        else:  # in place: no second (V, D) gradient; a second backward then fails, by autograd's own version check
            scaled = [saved.mul_(grad) for saved in ctx.saved_tensors]
        return (
            *(g if want else None for g, want in zip(scaled, ctx.want, strict=True)),
            None,
            None,
            None,
            None,
        )


class _PerRow(torch.autograd.Function):
    """The R row losses themselves: their weights come only with the backward pass, so it computes the chunks anew."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, settings):
        rows, log_probs, *_ = torch.ops.dnagpt_fast.combined_loss_rows(
            hidden, weight, bias, targets, None, *settings, False, False, False
        )
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.settings = settings
        ctx.mark_non_differentiable(log_probs)
        return rows, log_probs

    @staticmethod
    def backward(ctx, grad, _):
        refuse_double_backward()
        want = ctx.needs_input_grad[:3]
        _, _, *grads = torch.ops.dnagpt_fast.combined_loss_rows(
            *ctx.saved_tensors, grad, *ctx.settings, *want
        )
        return (*(g if w else None for g, w in zip(grads, want, strict=True)), None, None)


def combined_loss_chunked(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    bias: torch.Tensor | None,
    row_kind: torch.Tensor | None,
    gc_prediction: torch.Tensor | None,
    gc_target: torch.Tensor | None,
    gc_mask: torch.Tensor | None,
    order_weight: float,
    gc_weight: float,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    z_loss: float,
    soft_cap: float | None,
    skip_below: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Arguments as in `ops.combined_loss`; (total, next_token, order, gc, log_probs), in fp32 or wider.

    Half-precision inputs are computed in fp32, under autocast too. The tile skip is here as the definition of what
    the Triton kernels do with it, to be studied without a GPU; it saves no time here.
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    counted = targets != ignore_index
    next_token = counted if row_kind is None else counted & (row_kind == ROW_NEXT_TOKEN)
    order = torch.zeros_like(counted) if row_kind is None else counted & (row_kind == ROW_ORDER)
    targets = torch.where(next_token | order, targets, ignore_index)
    settings = (ignore_index, label_smoothing, z_loss, soft_cap, skip_below)
    next_scale, order_scale = next_token.to(dtype), order.to(dtype)
    if reduction == "mean":
        next_scale = next_scale / next_token.sum().clamp(min=1)
        order_scale = order_scale / order.sum().clamp(min=1)
    if reduction == "none":
        rows, log_probs = _PerRow.apply(hidden, weight, bias, targets, settings)
        total = rows * (next_scale + order_weight * order_scale)
        next_loss, order_loss = rows * next_scale, rows * order_scale
    else:
        total, rows, log_probs = _ScaledSum.apply(
            hidden,
            weight,
            bias,
            targets,
            next_scale + order_weight * order_scale,
            torch.is_grad_enabled(),
            settings,
        )
        next_loss, order_loss = (rows * next_scale).sum(), (rows * order_scale).sum()
    gc = gc_loss(gc_prediction, gc_target, gc_mask, reduction, total)
    if reduction != "none" and gc_prediction is not None:
        total = total + gc_weight * gc
    return total, next_loss, order_loss, gc, log_probs
