"""The combined loss on the CPU: a chunk of rows at a time, with its gradient computed in the same pass.

The equations are those of reference.py. Only one chunk of CHUNK_BYTES of the (R, V) logits exists at a time. With
p = softmax(z) and g_r = d total / d row_r, known before the first chunk,
    d z_rv = g_r ((1 + 2 z_loss lse_r) p_rv - (1 - e) [v = target_r] - e / V) (1 - (z_rv / soft_cap)^2)
(e / V times `rest` for the last entry of the compact form; base_level.py has the terms of the base-level loss)
    d x = dz W,  d W = dz^T x (in fp32),  d b = sum_r dz:  three matrix products in all, the minimum.
Ignored rows are left out of the products; if no gradient is needed, only the first product runs.
"""

import math
from typing import Any

import torch

from dnagpt_fast.ops.combined_loss.base_level import base_probabilities, pulled_up
from dnagpt_fast.ops.combined_loss.reference import gc_loss, kinds_of_rows
from dnagpt_fast.ops.combined_loss.settings import (
    ROW_SCHEMA,
    LossInputs,
    LossParts,
    LossSettings,
    RowSettings,
)
from dnagpt_fast.ops.combined_loss.tiles import TILE_ROWS, TILE_VOCAB, tile_order
from dnagpt_fast.ops.linear import linear
from dnagpt_fast.ops.registration import refuse_second_derivative, register_op

CHUNK_BYTES = 16 * 2**20  # 214 rows at V = 19,564: near a last-level cache, and products run at full speed


def _rows(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    is_next: torch.Tensor,
    row_scale: torch.Tensor | None,
    want_hidden: bool,
    want_weight: bool,
    want_bias: bool,
    *row_settings: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss and log-probability of each row (0 if ignored); with row_scale the requested gradients, otherwise empty
    tensors."""
    settings = RowSettings(*row_settings)
    smoothing, cap, share = settings.label_smoothing, settings.soft_cap, settings.base_level
    vocab = weight.shape[0]
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    counted = targets != settings.ignore_index
    outside = counted & ((targets < 0) | (targets >= vocab))
    if outside.any():
        row = int(outside.nonzero()[0])
        raise IndexError(f"combined_loss: row {row} has target {int(targets[row])}: wanted 0..{vocab - 1}")
    counted_rows = None if counted.all() else counted.nonzero()[:, 0]
    n_rows = len(targets) if counted_rows is None else len(counted_rows)
    loss, log_probs = hidden.new_zeros(len(targets), dtype=dtype), hidden.new_zeros(len(targets), dtype=dtype)
    want_hidden = want_hidden and row_scale is not None
    d_hidden = hidden.new_zeros(hidden.shape if want_hidden else 0)
    want_weight, want_bias = want_weight and row_scale is not None, want_bias and row_scale is not None
    d_weight = weight.new_zeros(weight.shape if want_weight else 0, dtype=dtype)
    d_bias = weight.new_zeros(vocab if want_bias else 0, dtype=dtype)
    chunk = max(16, min(n_rows, CHUNK_BYTES // (vocab * dtype.itemsize)))
    least = settings.skip_below if settings.may_skip else None
    order, place = tile_order(vocab, k=settings.k, compact=settings.rest > 0)
    tile_of = place.long() // TILE_VOCAB
    counts = weight.new_ones(vocab, dtype=dtype)  # vocabulary entries that each column represents
    if settings.rest:
        counts[-1] = settings.rest
    mean_of = counts / settings.entries(vocab)
    with torch.autocast("cpu", enabled=False):
        weight_wide, bias_wide = weight.to(dtype), None if bias is None else bias.to(dtype)
        for start in range(0, n_rows, chunk):
            rows = slice(start, min(start + chunk, n_rows))
            here: Any = rows if counted_rows is None else counted_rows[rows]
            x, target = hidden[here].to(dtype), targets[here][:, None]
            z = linear(x, weight_wide, bias_wide)
            slope = None
            if cap is not None:
                z.div_(cap).tanh_()
                slope = None if row_scale is None else 1 - z.square()
                z.mul_(cap)
            mean_z = (z @ mean_of)[:, None] if smoothing else 0.0
            if settings.rest:
                z[:, -1] += math.log(settings.rest)
            peak = z.amax(1, keepdim=True)
            target_z = z.gather(1, target)
            z.sub_(peak).exp_()
            total = z.sum(1, keepdim=True)
            lse = total.log() + peak
            row_loss = lse - (1 - smoothing) * target_z - smoothing * mean_z
            bases = None
            if share:
                bases = BaseLevelChunk(z, total, place[target[:, 0]], is_next[here], order, settings)
                row_loss = bases.blended(row_loss)
            row_loss += settings.z_loss * lse.square()
            loss[here] = row_loss[:, 0]
            log_probs[here] = (target_z - lse)[:, 0]
            if row_scale is None:
                del z  # before the next chunk's
                continue
            scale = row_scale[here][:, None].to(dtype)
            kept = None if least is None else kept_tiles(z, total * least, target, settings.rest > 0)
            pulled = None if bases is None else bases.pulled(z, scale / total)
            z.mul_(scale * (1 + 2 * settings.z_loss * lse) / total)
            if smoothing:
                z.sub_(scale * (smoothing * mean_of))
            z.scatter_add_(1, target, scale * (smoothing - 1) if bases is None else -scale * bases.left)
            if bases is not None and pulled is not None:
                bases.subtract(z, pulled)
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
            del z
    return (
        loss,
        log_probs,
        d_hidden,
        d_weight.to(weight.dtype),
        d_bias.to(weight.dtype if bias is None else bias.dtype),
    )


class BaseLevelChunk:
    """The base-level loss of a chunk of rows, and its terms of their gradient."""

    def __init__(
        self,
        exp_z: torch.Tensor,  # (R, V), relative to any maximum
        total: torch.Tensor,  # (R, 1), its sum
        number: torch.Tensor,  # (R,), place of the target
        is_next: torch.Tensor,  # bool (R,)
        order: torch.Tensor,  # (V,), tokens in the order of places
        settings: RowSettings,
    ) -> None:
        self.k, share = settings.k, settings.base_level
        self.by_base = (is_next & (number < 4**self.k))[:, None]
        self.number = torch.where(self.by_base[:, 0], number, 0).long()
        # None in the compact form, where the columns of the plain k-mers come first
        self.kmers = None if settings.rest else order[: 4**self.k].long()
        self.share = self.by_base.to(exp_z.dtype) * share
        self.left = 1 - self.share  # the share of the cross-entropy
        self.probabilities = base_probabilities(self._plain(exp_z), total, self.number, self.k)

    def _plain(self, table: torch.Tensor) -> torch.Tensor:
        return table[:, : 4**self.k] if self.kmers is None else table.index_select(1, self.kmers)

    def blended(self, cross_entropy: torch.Tensor) -> torch.Tensor:
        """(R, 1): the loss of each row."""
        base = -self.probabilities.log().mean(1, keepdim=True)
        return torch.where(self.by_base, self.left * cross_entropy + self.share * base, cross_entropy)

    def pulled(self, exp_z: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """(R, 4^k): scale (R, 1) times exp_z times the weight by which the base-level loss raises each plain k-mer."""
        up = pulled_up(self.share / self.k / self.probabilities, self.number, self.k)
        return up.mul_(self._plain(exp_z)).mul_(scale)

    def subtract(self, table: torch.Tensor, pulled: torch.Tensor) -> None:
        """table (R, V) -= pulled (R, 4^k), at the plain k-mers, in place."""
        if self.kmers is None:
            self._plain(table).sub_(pulled)
        else:
            table.index_add_(1, self.kmers, pulled, alpha=-1)


def kept_tiles(
    values: torch.Tensor, below: torch.Tensor, target: torch.Tensor, compact: bool = False
) -> torch.Tensor:
    """bool (row tiles, vocabulary tiles), in the kernels' order: the tiles whose gradient is computed. One of their
    `values` (R, V) reaches `below` (R, 1) of its row, or is at the row's `target` (R, 1). A NaN keeps its tile."""
    order, place = tile_order(values.shape[1], compact=compact)
    reaches = [
        ~(rows < least).all(0)
        for rows, least in zip(values.split(TILE_ROWS), below.split(TILE_ROWS), strict=True)
    ]
    in_order = torch.stack(reaches)[:, order.long()]
    kept = torch.stack([columns.any(1) for columns in in_order.split(TILE_VOCAB, 1)], 1)
    kept[torch.arange(len(values)) // TILE_ROWS, place[target[:, 0]].long() // TILE_VOCAB] = True
    return kept


def _rows_fake(
    hidden, weight, bias, targets, is_next, row_scale, want_hidden, want_weight, want_bias, *row_settings
):
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    rows = hidden.new_empty(targets.shape, dtype=dtype)
    grad = row_scale is not None
    return (
        rows,
        torch.empty_like(rows),
        hidden.new_empty(hidden.shape if grad and want_hidden else 0),
        weight.new_empty(weight.shape if grad and want_weight else 0),
        (weight if bias is None else bias).new_empty(weight.shape[0] if grad and want_bias else 0),
    )


register_op(
    "combined_loss_rows(Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, Tensor is_next,"
    " Tensor? row_scale,"
    f" bool want_hidden, bool want_weight, bool want_bias, {ROW_SCHEMA})"
    " -> (Tensor loss, Tensor log_probs, Tensor d_hidden, Tensor d_weight, Tensor d_bias)",
    _rows,
    fake=_rows_fake,
    key="CPU",
)


class _ScaledSum(torch.autograd.Function):
    """sum_r row_scale_r row_r, with its gradient computed in the forward pass; and the rows, without gradient."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, is_next, row_scale, grad_wanted, settings):
        want = [t is not None and t.requires_grad and grad_wanted for t in (hidden, weight, bias)]
        rows, log_probs, *grads = torch.ops.dnagpt_fast.combined_loss_rows(
            hidden, weight, bias, targets, is_next, row_scale if any(want) else None, *want, *settings
        )
        ctx.want = want
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(rows, log_probs)
        ctx.set_materialize_grads(False)
        return (rows * row_scale).sum(), rows, log_probs

    @staticmethod
    def backward(ctx, grad, *_):
        if grad is None:
            return (None,) * 8
        refuse_second_derivative("combined_loss")
        if torch.compiler.is_compiling():
            scaled = [saved * grad.to(saved.dtype) for saved in ctx.saved_tensors]
        else:  # in place: no second (V, D) gradient; a second backward then fails, by autograd's own version check
            scaled = [saved.mul_(grad) for saved in ctx.saved_tensors]
        grads = (g if want else None for g, want in zip(scaled, ctx.want, strict=True))
        return *grads, None, None, None, None, None


class _PerRow(torch.autograd.Function):
    """The R row losses: their weights are known only in the backward pass, so it computes the chunks again."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, is_next, settings):
        rows, log_probs, *_ = torch.ops.dnagpt_fast.combined_loss_rows(
            hidden, weight, bias, targets, is_next, None, False, False, False, *settings
        )
        ctx.save_for_backward(hidden, weight, bias, targets, is_next)
        ctx.settings = settings
        ctx.mark_non_differentiable(log_probs)
        return rows, log_probs

    @staticmethod
    def backward(ctx, grad, _):
        refuse_second_derivative("combined_loss")
        want = ctx.needs_input_grad[:3]
        _, _, *grads = torch.ops.dnagpt_fast.combined_loss_rows(
            *ctx.saved_tensors, grad, *want, *ctx.settings
        )
        return *(g if w else None for g, w in zip(grads, want, strict=True)), None, None, None


def combined_loss_chunked(inputs: LossInputs, settings: LossSettings) -> LossParts:
    """The loss, one chunk of rows at a time.

    Half-precision inputs are computed in fp32, under autocast too. The tile skip saves no time here: it defines what
    the Triton kernels do, so that its effect can be studied without a GPU.
    """
    hidden, weight, targets, bias, *_ = inputs
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    is_next, is_order = kinds_of_rows(inputs, settings.rows.ignore_index)
    targets = torch.where(is_next | is_order, targets, settings.rows.ignore_index)
    next_scale, order_scale = is_next.to(dtype), is_order.to(dtype)
    if settings.reduction == "mean":
        next_scale = next_scale / is_next.sum().clamp(min=1)
        order_scale = order_scale / is_order.sum().clamp(min=1)
    scale = next_scale + settings.order_weight * order_scale
    if settings.reduction == "none":
        rows, log_probs = _PerRow.apply(hidden, weight, bias, targets, is_next, settings.rows)
        total, next_token, order = rows * scale, rows * next_scale, rows * order_scale
    else:
        total, rows, log_probs = _ScaledSum.apply(
            hidden, weight, bias, targets, is_next, scale, torch.is_grad_enabled(), settings.rows
        )
        next_token, order = (rows * next_scale).sum(), (rows * order_scale).sum()
    gc = gc_loss(inputs, settings.reduction, total)
    if settings.reduction != "none" and inputs.gc_prediction is not None:
        total = total + settings.gc_weight * gc
    return LossParts(total, next_token, order, gc, log_probs)
