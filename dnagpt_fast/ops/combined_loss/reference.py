"""The three losses of DNAGPT pre-training (arXiv 2307.05628, section 3) in plain torch, as one differentiable sum.

For row r with logits z = soft_cap(W x_r + b) over V tokens, p = softmax(z), e = label_smoothing:
    nll_r  = -(1 - e) log p[target_r] - e / V sum_v log p[v]          (Szegedy et al., arXiv 1512.00567)
    row_r  = nll_r + z_loss * logsumexp(z)^2                           (PaLM, arXiv 2204.02311)
    soft_cap(z) = c tanh(z / c)                                        (Gemma 2, arXiv 2408.00118)
    row_r  = (1 - s) nll_r + s base_r + z_loss * logsumexp(z)^2        in next-token rows whose target is a plain k-mer,
             with s = base_level and base_r of base_level.py
    total  = mean over next-token rows + order_weight * mean over order rows + gc_weight * mean squared GC error
In the compact form (occurring.py), log(rest) is added to z of the last entry after the cap, and this entry counts
`rest` times in the sum of the label smoothing and in V.
"""

import torch
import torch.nn.functional as F

from dnagpt_fast.batch import ROW_NEXT_TOKEN, ROW_ORDER
from dnagpt_fast.ops.combined_loss.base_level import base_level_rows
from dnagpt_fast.ops.combined_loss.settings import LossInputs, LossParts, LossSettings
from dnagpt_fast.ops.combined_loss.tiles import tile_order


def combined_loss_reference(inputs: LossInputs, settings: LossSettings) -> LossParts:
    """The loss with all its logits in memory."""
    rows, targets = settings.rows, inputs.targets
    dtype = torch.promote_types(inputs.hidden.dtype, torch.float32)
    logits = F.linear(inputs.hidden, inputs.weight, inputs.bias).to(dtype)
    if rows.soft_cap is not None:
        logits = rows.soft_cap * torch.tanh(logits / rows.soft_cap)
    is_next, is_order = kinds_of_rows(inputs, rows.ignore_index)
    counts = logits.new_ones(logits.shape[1])  # vocabulary entries that each column represents
    if rows.rest:
        counts[-1] = rows.rest
        logits = logits + counts.log()
    log_p = logits.log_softmax(-1)
    target_log_p = log_p.gather(1, torch.where(targets != rows.ignore_index, targets, 0)[:, None])[:, 0]
    mean_log_p = ((log_p - counts.log()) * counts).sum(-1) / rows.entries(len(counts))
    loss = -(1 - rows.label_smoothing) * target_log_p - rows.label_smoothing * mean_log_p
    if rows.base_level:
        order, place = tile_order(len(counts), targets.device, rows.k, bool(rows.rest))
        number = place[torch.where(is_next, targets, 0)].long()
        by_base = is_next & (number < 4**rows.k)
        base = base_level_rows(logits, order[: 4**rows.k].long(), torch.where(by_base, number, 0))
        loss = torch.where(by_base, (1 - rows.base_level) * loss + rows.base_level * base, loss)
    loss = loss + rows.z_loss * logits.logsumexp(-1).square()

    next_token, order = (reduce(loss, mask, settings.reduction) for mask in (is_next, is_order))
    total = next_token + settings.order_weight * order
    gc = gc_loss(inputs, settings.reduction, total)
    if settings.reduction != "none":
        total = total + settings.gc_weight * gc
    return LossParts(total, next_token, order, gc, torch.where(is_next | is_order, target_log_p, 0).detach())


def kinds_of_rows(inputs: LossInputs, ignore_index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """bool (R,) twice: the next-token rows and the order rows, without ignored rows."""
    counted = inputs.targets != ignore_index
    if inputs.row_kind is None:
        return counted, torch.zeros_like(counted)
    return counted & (inputs.row_kind == ROW_NEXT_TOKEN), counted & (inputs.row_kind == ROW_ORDER)


def reduce(values: torch.Tensor, mask: torch.Tensor, reduction: str) -> torch.Tensor:
    """Mean (0 for no rows) or sum over the rows of the mask; with "none" the rows, 0 where masked."""
    values = torch.where(mask, values, 0)
    if reduction == "none":
        return values
    return values.sum() / (mask.sum().clamp(min=1) if reduction == "mean" else 1)


def gc_loss(inputs: LossInputs, reduction: str, like: torch.Tensor) -> torch.Tensor:
    """Squared error of the GC prediction in the dtype of `like`; without a prediction 0, or empty with "none"."""
    if inputs.gc_prediction is None or inputs.gc_target is None:
        return like.new_zeros(0 if reduction == "none" else ())
    error = (inputs.gc_prediction.to(like.dtype) - inputs.gc_target.to(like.dtype)).square()
    mask = inputs.gc_mask
    return reduce(error, torch.ones_like(error, dtype=torch.bool) if mask is None else mask, reduction)
