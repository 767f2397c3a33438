"""The combined loss of pre-training, fine-tuning and scoring: last projection, softmax, three objectives, one op."""

from typing import Any, NamedTuple

import torch

from dnagpt_fast.batch import IGNORE_INDEX
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.combined_loss.chunked import combined_loss_chunked
from dnagpt_fast.ops.combined_loss.reference import combined_loss_reference

REDUCTIONS = ("mean", "sum", "none")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_library = torch.library.Library("dnagpt_fast", "FRAGMENT")
_library.define(
    "combined_loss_class_targets(Tensor targets, Tensor classes, int vocab, int ignore_index) -> Tensor"
)


@torch.library.impl(_library, "combined_loss_class_targets", "CompositeExplicitAutograd")
def _class_targets(
    targets: torch.Tensor, classes: torch.Tensor, vocab: int, ignore_index: int
) -> torch.Tensor:
    """Each target's place in `classes`. For a target that is none of them IndexError on CPU; elsewhere, where looking
    would cost a sync, the place C, which makes the loss NaN."""
    n_classes = len(classes)
    place = torch.full((vocab,), n_classes, dtype=torch.int64, device=targets.device)
    place = place.index_put((classes,), torch.arange(n_classes, device=targets.device))
    inside = (targets >= 0) & (targets < vocab)
    places = torch.where(inside, place[torch.where(inside, targets, 0)], n_classes)
    if targets.device.type == "cpu" and (outside := (places == n_classes) & (targets != ignore_index)).any():
        row = int(outside.nonzero()[0])
        raise IndexError(
            f"combined_loss: row {row} has target {int(targets[row])}, which is none of the {n_classes} classes"
        )
    return torch.where(targets == ignore_index, ignore_index, places)


@torch.library.register_fake("dnagpt_fast::combined_loss_class_targets", lib=_library)
def _class_targets_fake(
    targets: torch.Tensor, classes: torch.Tensor, vocab: int, ignore_index: int
) -> torch.Tensor:
    return torch.empty_like(targets)


class CombinedLoss(NamedTuple):
    """What the op returns. Only `total` carries a gradient; the parts are for the log.

    total       0-d; next_token + order_weight * order + gc_weight * gc. With reduction="none" (R,), without gc
    next_token  0-d, nats a token over the valid next-token rows; with "none" (R,), 0 in the other rows
    order       0-d, over the valid order rows; with "none" (R,), 0 in the other rows
    gc          0-d, squared error over gc_mask; with "none" (B,), unweighted, 0 where masked
    log_probs   (R,) natural log of the target's probability, 0 in ignored rows; None unless asked for
    """

    total: torch.Tensor
    next_token: torch.Tensor
    order: torch.Tensor
    gc: torch.Tensor
    log_probs: torch.Tensor | None


def combined_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    row_kind: torch.Tensor | None = None,
    gc_prediction: torch.Tensor | None = None,
    gc_target: torch.Tensor | None = None,
    gc_mask: torch.Tensor | None = None,
    order_weight: float = 1.0,
    gc_weight: float = 0.01,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    soft_cap: float | None = None,
    return_log_probs: bool = False,
    classes: torch.Tensor | None = None,
    skip_below: float | None = None,
) -> CombinedLoss:
    """Next-token, order and GC loss of R rows without ever holding the (R, V) logits (but in the reference).

    hidden         (R, D) float16, bfloat16, float32 or float64: what the last projection reads
    weight, bias   (V, D), (V,): the last projection, in the dtype of `hidden` (under autocast any float dtype)
    targets        int64 (R,), 0..V-1, or ignore_index
    row_kind       uint8 (R,) of batch.ROW_IGNORED, ROW_NEXT_TOKEN, ROW_ORDER; None: every row is a next-token row
    gc_prediction  float (B,), gc_target float (B,), gc_mask bool (B,) (None: all): the GC regression
    reduction      "mean" (each part over its own valid rows; a part without rows is 0), "sum" or "none" (no row sums)
    label_smoothing, z_loss, soft_cap: as written out in combined_loss_reference.py; they apply to both kinds of rows
    classes        int64 (C,), distinct token ids: the softmax (and the label smoothing) runs over these tokens alone,
                   p(v) = exp(z_v) / sum of exp(z_c) over c in classes; every target must be one of them. This is
                   classification by answer tokens; the other rows of `weight` get no gradient.
    skip_below     None, or a probability, 2^-24 say: where no entry of a tile of 128 rows x 128 vocabulary entries
                   reaches it (and none is a target) the tile's gradient may be left out

    The equations are in combined_loss_reference.py. Gradients: `total` for hidden, weight, bias and gc_prediction.
    A target outside 0..V-1 (or outside `classes`) raises IndexError on CPU; on CUDA, where looking would cost a sync,
    the loss and its gradients are NaN. Raises ValueError for shapes, dtypes, devices or settings that do not fit.
    """
    _check(hidden, weight, targets, bias, row_kind, gc_prediction, gc_target, gc_mask, classes)
    _check_settings(reduction, label_smoothing, z_loss, soft_cap, skip_below)
    if classes is not None:
        targets = torch.ops.dnagpt_fast.combined_loss_class_targets(
            targets, classes, weight.shape[0], ignore_index
        )
        weight = weight.index_select(0, classes)
        bias = None if bias is None else bias.index_select(0, classes)
    settings: dict[str, Any] = {
        "bias": bias, "row_kind": row_kind, "gc_prediction": gc_prediction, "gc_target": gc_target,
        "gc_mask": gc_mask, "order_weight": float(order_weight), "gc_weight": float(gc_weight),
        "ignore_index": ignore_index, "reduction": reduction, "label_smoothing": float(label_smoothing),
        "z_loss": float(z_loss), "soft_cap": None if soft_cap is None else float(soft_cap),
    }  # fmt: skip
    name = dispatch.choose("combined_loss", hidden.device.type)
    if name == "chunked":
        results = combined_loss_chunked(hidden, weight, targets, skip_below=skip_below, **settings)
    elif name == "triton":
        from dnagpt_fast.ops.combined_loss.launch import combined_loss_triton

        results = combined_loss_triton(hidden, weight, targets, skip_below=skip_below, **settings)
    else:
        results = combined_loss_reference(hidden, weight, targets, **settings)
    *parts, log_probs = results
    total, next_token, order, gc = parts
    return CombinedLoss(
        total, next_token.detach(), order.detach(), gc.detach(), log_probs if return_log_probs else None
    )


def _check(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    bias: torch.Tensor | None,
    row_kind: torch.Tensor | None,
    gc_prediction: torch.Tensor | None,
    gc_target: torch.Tensor | None,
    gc_mask: torch.Tensor | None,
    classes: torch.Tensor | None,
) -> None:
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"combined_loss: hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)}: wanted (R, D) and (V, D)"
        )
    if hidden.dtype not in FLOATS or weight.dtype not in FLOATS:
        raise ValueError(f"combined_loss: hidden {hidden.dtype}, weight {weight.dtype}: wanted float dtypes")
    if hidden.dtype != weight.dtype and not torch.is_autocast_enabled(hidden.device.type):
        raise ValueError(
            f"combined_loss: hidden is {hidden.dtype}, weight is {weight.dtype}: wanted the same dtype"
        )
    rows, vocab = hidden.shape[0], weight.shape[0]
    wanted: list[tuple[str, torch.Tensor | None, tuple[int, ...] | None, tuple[torch.dtype, ...]]] = [
        ("targets", targets, (rows,), (torch.int64,)),
        ("bias", bias, (vocab,), FLOATS),
        ("row_kind", row_kind, (rows,), (torch.uint8,)),
    ]
    if gc_prediction is not None:
        if gc_target is None:
            raise ValueError("combined_loss: gc_prediction came without gc_target")
        if gc_prediction.dim() != 1:
            raise ValueError(f"combined_loss: gc_prediction is {tuple(gc_prediction.shape)}: wanted (B,)")
        wanted += [
            ("gc_prediction", gc_prediction, None, FLOATS),
            ("gc_target", gc_target, tuple(gc_prediction.shape), FLOATS),
            ("gc_mask", gc_mask, tuple(gc_prediction.shape), (torch.bool,)),
        ]
    elif gc_target is not None or gc_mask is not None:
        raise ValueError("combined_loss: gc_target or gc_mask came without gc_prediction")
    if classes is not None:
        if classes.dim() != 1 or classes.shape[0] == 0:
            raise ValueError(f"combined_loss: classes is {tuple(classes.shape)}: wanted (C,), C >= 1")
        wanted.append(("classes", classes, None, (torch.int64,)))
    for name, tensor, shape, dtypes in wanted:
        if tensor is None:
            continue
        if shape is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"combined_loss: {name} is {tuple(tensor.shape)}: wanted {shape}")
        if tensor.dtype not in dtypes:
            names = " or ".join(str(dtype) for dtype in dtypes)
            raise ValueError(f"combined_loss: {name} is {tensor.dtype}: wanted {names}")
        if tensor.device != hidden.device:
            raise ValueError(f"combined_loss: {name} is on {tensor.device}, hidden on {hidden.device}")
    if weight.device != hidden.device:
        raise ValueError(f"combined_loss: weight is on {weight.device}, hidden on {hidden.device}")


def _check_settings(
    reduction: str, label_smoothing: float, z_loss: float, soft_cap: float | None, skip_below: float | None
) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"combined_loss: reduction {reduction!r}: wanted one of {', '.join(REDUCTIONS)}")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"combined_loss: label_smoothing {label_smoothing}: wanted 0..1")
    if z_loss < 0.0:
        raise ValueError(f"combined_loss: z_loss {z_loss}: wanted 0 or more")
    if soft_cap is not None and not soft_cap > 0.0:
        raise ValueError(f"combined_loss: soft_cap {soft_cap}: wanted a positive number or None")
    if skip_below is not None and not 0.0 < skip_below <= 2**-12:
        raise ValueError(
            f"combined_loss: skip_below {skip_below}: wanted None or a probability in (0, 2^-12]"
        )
