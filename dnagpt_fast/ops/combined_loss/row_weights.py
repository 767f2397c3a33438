"""The combined loss with a weight for each next-token row: a weighted mean instead of the mean.

next_token = sum_r w_r row_r / sum_r w_r  over the valid next-token rows; the order and GC losses have no weights
"""

from collections.abc import Callable

import torch

from dnagpt_fast.ops.combined_loss.reference import gc_loss, kinds_of_rows
from dnagpt_fast.ops.combined_loss.settings import LossInputs, LossParts, LossSettings


def weighted_rows(
    implementation: Callable[[LossInputs, LossSettings], LossParts],
    inputs: LossInputs,
    settings: LossSettings,
    row_weight: torch.Tensor,
) -> LossParts:
    """The rows of `implementation`, reduced with weights. row_weight: float (R,), 0 or more.

    Reduction "sum": the sum of w_r row_r; "none": the rows times their weights.
    """
    without_gc = inputs._replace(gc_prediction=None, gc_target=None, gc_mask=None)
    rows = implementation(without_gc, settings._replace(reduction="none"))
    is_next, is_order = kinds_of_rows(inputs, settings.rows.ignore_index)
    weight = torch.where(is_next, row_weight.to(rows.total.dtype), 0)
    if settings.reduction == "none":
        total = torch.where(is_next, weight, 1) * rows.total
        return rows._replace(
            total=total, next_token=weight * rows.next_token, gc=gc_loss(inputs, "none", rows.total)
        )
    order = is_order.to(weight.dtype)
    if settings.reduction == "mean":
        # If all weights are 0, the loss is 0.
        weight = weight / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
        order = order / is_order.sum().clamp(min=1)
    gc = gc_loss(inputs, settings.reduction, rows.total)
    return LossParts(
        total=((weight + order) * rows.total).sum() + settings.gc_weight * gc,
        next_token=(weight * rows.next_token).sum(),
        order=(order * rows.order).sum(),
        gc=gc,
        log_probs=rows.log_probs,
    )
