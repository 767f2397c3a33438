"""The three objectives of DNAGPT pre-training (arXiv 2307.05628, section 3), plainly, as one differentiable sum.

For row r with logits z = soft_cap(W x_r + b) over V tokens, p = softmax(z), e = label_smoothing:
    nll_r  = -(1 - e) log p[target_r] - e / V sum_v log p[v]          (Szegedy et al., arXiv 1512.00567)
    row_r  = nll_r + z_loss * logsumexp(z)^2                           (PaLM, arXiv 2204.02311)
    soft_cap(z) = c tanh(z / c)                                        (Gemma 2, arXiv 2408.00118)
    total  = mean over next-token rows + order_weight * mean over order rows + gc_weight * mean squared GC error
"""

import torch
import torch.nn.functional as F

from dnagpt_fast.batch import ROW_NEXT_TOKEN, ROW_ORDER


def combined_loss_reference(
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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Arguments as in `ops.combined_loss`; (total, next_token, order, gc, log_probs), in fp32 or wider."""
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    logits = F.linear(hidden, weight, bias).to(dtype)
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    valid = targets != ignore_index
    log_p = logits.log_softmax(-1)
    target_log_p = log_p.gather(1, torch.where(valid, targets, 0)[:, None])[:, 0]
    rows = -(1 - label_smoothing) * target_log_p - label_smoothing * log_p.mean(-1)
    rows = rows + z_loss * logits.logsumexp(-1).square()

    kind = torch.full_like(targets, ROW_NEXT_TOKEN) if row_kind is None else row_kind
    is_next, is_order = valid & (kind == ROW_NEXT_TOKEN), valid & (kind == ROW_ORDER)
    next_token, order = reduce(rows, is_next, reduction), reduce(rows, is_order, reduction)
    total = next_token + order_weight * order
    gc = gc_loss(gc_prediction, gc_target, gc_mask, reduction, total)
    if reduction != "none":
        total = total + gc_weight * gc
    return total, next_token, order, gc, torch.where(is_next | is_order, target_log_p, 0).detach()


def reduce(values: torch.Tensor, mask: torch.Tensor, reduction: str) -> torch.Tensor:
    values = torch.where(mask, values, 0)
    if reduction == "none":
        return values
    return values.sum() / (mask.sum().clamp(min=1) if reduction == "mean" else 1)


def gc_loss(
    prediction: torch.Tensor | None,
    target: torch.Tensor | None,
    mask: torch.Tensor | None,
    reduction: str,
    like: torch.Tensor,
) -> torch.Tensor:
    """Squared error of the GC prediction in the dtype of `like`; 0, or empty with "none", where none is predicted."""
    if prediction is None or target is None:
        return like.new_zeros(0 if reduction == "none" else ())
    error = (prediction.to(like.dtype) - target.to(like.dtype)).square()
    return reduce(error, torch.ones_like(error, dtype=torch.bool) if mask is None else mask, reduction)
