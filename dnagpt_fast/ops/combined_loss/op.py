"""The combined loss of pre-training, fine-tuning and scoring: last projection, softmax and three losses in one op."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from dnagpt_fast.batch import IGNORE_INDEX
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.combined_loss.chunked import combined_loss_chunked
from dnagpt_fast.ops.combined_loss.occurring import OccurringTokens, compact_rows
from dnagpt_fast.ops.combined_loss.reference import combined_loss_reference, kinds_of_rows
from dnagpt_fast.ops.combined_loss.row_weights import weighted_rows
from dnagpt_fast.ops.combined_loss.settings import (
    LossInputs,
    LossParts,
    LossSettings,
    RowSettings,
    check_settings,
)
from dnagpt_fast.ops.registration import register_op
from dnagpt_fast.vocab import MAX_K, Vocabulary

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _class_targets(
    targets: torch.Tensor, classes: torch.Tensor, vocab: int, ignore_index: int
) -> torch.Tensor:
    """The index of each target in `classes`, IGNORE_INDEX for ignored targets. A target that is not in `classes` raises
    IndexError on the CPU; on other devices, where the check would need a sync, it gets index C, and the loss is NaN."""
    n_classes = len(classes)
    place = torch.full((vocab,), n_classes, dtype=torch.int64, device=targets.device)
    place = place.index_put((classes,), torch.arange(n_classes, device=targets.device))
    inside = (targets >= 0) & (targets < vocab)
    places = torch.where(inside, place[torch.where(inside, targets, 0)], n_classes)
    if targets.device.type == "cpu" and (outside := (places == n_classes) & (targets != ignore_index)).any():
        row = int(outside.nonzero()[0])
        raise IndexError(
            f"combined_loss: row {row} has target {int(targets[row])}, which is not one of the {n_classes} classes"
        )
    return torch.where(targets == ignore_index, IGNORE_INDEX, places)


register_op(
    "combined_loss_class_targets(Tensor targets, Tensor classes, int vocab, int ignore_index) -> Tensor",
    _class_targets,
    fake=lambda targets, classes, vocab, ignore_index: torch.empty_like(targets),
)


class CombinedLoss(NamedTuple):
    """The result of the op, in float32 or float64. Only `total` has a gradient; the parts are for logs.

    total       0-d; next_token + order_weight * order + gc_weight * gc. With reduction="none" (R,), without gc
    next_token  0-d, nats per token over the valid next-token rows; with "none" (R,), 0 in the other rows
    order       0-d, over the valid order rows; with "none" (R,), 0 in the other rows
    gc          0-d, squared error over gc_mask; with "none" (B,), unweighted, 0 where masked
    log_probs   (R,) natural log of the target's probability, 0 in ignored rows; None unless return_log_probs is True
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
    occurring: OccurringTokens | None = None,
    base_level: float = 0.0,
    k: int | None = None,
    row_weight: torch.Tensor | None = None,
    skip_below: float | None = None,
) -> CombinedLoss:
    """Next-token, order and GC loss of R rows; only the reference holds the (R, V) logits in memory.

    hidden         (R, D) float16, bfloat16, float32 or float64: the input of the last projection
    weight, bias   (V, D), (V,): the last projection, in the dtype of `hidden` (under autocast any float dtype)
    targets        int64 (R,), 0..V-1, or ignore_index
    row_kind       uint8 (R,) of batch.ROW_IGNORED, ROW_NEXT_TOKEN, ROW_ORDER; None: every row is a next-token row
    gc_prediction  float (B,), gc_target float (B,), gc_mask bool (B,) (None: all): the GC regression
    reduction      "mean" (each part over its own valid rows; a part without rows is 0), "sum" or "none" (no row sums)
    label_smoothing, z_loss, soft_cap: defined in reference.py; they apply to both kinds of rows
    classes        int64 (C,), distinct token ids: the softmax (and the label smoothing) is over these tokens only,
                   p(v) = exp(z_v) / sum of exp(z_c) over c in classes; every target must be one of them. This is
                   classification by answer tokens; the other rows of `weight` get no gradient.
    occurring      made by occurring_tokens (occurring.py): the softmax over all V tokens, at the cost of those that can
                   be a target. The rows of `weight` and `bias` of all other tokens must be equal, which is not
                   checked here (unequal_rest checks it). Next-token rows with such a token as target are ignored. The
                   gradient is that of the full softmax
    base_level     a share s: the loss of next-token rows whose target is a plain k-mer is (1 - s) times the
                   cross-entropy plus s times the mean over the k places of -log P(base) (base_level.py), nats per base
    k              length of the vocabulary's k-mers, needed with base_level unless `occurring` is given
    row_weight     float (R,), 0 or more: the next-token part is the weighted mean (or sum) of its rows (row_weights.py)
    skip_below     None, or a probability such as 2^-24: if every entry of a tile of 128 rows x 128 vocabulary entries
                   is below it (and none is a target), the tile's gradient may be skipped

    The equations are in reference.py. Gradients: of `total` for hidden, weight, bias and gc_prediction.
    A target outside 0..V-1 (or outside `classes`) raises IndexError on the CPU; on CUDA, where the check would need a
    sync, the loss and its gradients are NaN. Raises ValueError for shapes, dtypes, devices or settings that do not fit.
    """
    inputs = LossInputs(hidden, weight, targets, bias, row_kind, gc_prediction, gc_target, gc_mask)
    cap = None if soft_cap is None else float(soft_cap)
    if occurring is not None and k not in (None, occurring.k):
        raise ValueError(f"combined_loss: k {k} and occurring tokens of k {occurring.k}: wanted the same")
    kmer_length = (k or 0) if occurring is None else occurring.k
    rows = RowSettings(
        ignore_index, float(label_smoothing), float(z_loss), cap, skip_below,
        float(base_level), kmer_length if base_level else 0,
    )  # fmt: skip
    settings = LossSettings(float(order_weight), float(gc_weight), reduction, rows)
    _check(inputs, classes)
    check_settings(settings)
    _check_tokens(weight, classes, occurring, rows)
    if classes is not None:
        inputs, settings = _among_classes(inputs, settings, classes)
    if occurring is not None:
        inputs, settings = _among_occurring(inputs, settings, occurring)
    implementation = _implementation(hidden.device.type)
    if row_weight is None:
        parts = implementation(inputs, settings)
    else:
        _check_row_weight(row_weight, hidden)
        parts = weighted_rows(implementation, inputs, settings, row_weight)
    return CombinedLoss(
        parts.total,
        parts.next_token.detach(),
        parts.order.detach(),
        parts.gc.detach(),
        parts.log_probs if return_log_probs else None,
    )


def _implementation(device_type: str) -> Callable[[LossInputs, LossSettings], LossParts]:
    name = dispatch.choose("combined_loss", device_type)
    if name == "triton":
        from dnagpt_fast.ops.combined_loss.launch import combined_loss_triton

        return combined_loss_triton
    if name in ("products", "rule"):
        from dnagpt_fast.ops.combined_loss.products import combined_loss_by_rule, combined_loss_products

        return combined_loss_products if name == "products" else combined_loss_by_rule
    return combined_loss_chunked if name == "chunked" else combined_loss_reference


def _among_classes(
    inputs: LossInputs, settings: LossSettings, classes: torch.Tensor
) -> tuple[LossInputs, LossSettings]:
    """The same loss over the rows of `weight` in `classes`; the targets become indices into `classes`."""
    targets = torch.ops.dnagpt_fast.combined_loss_class_targets(
        inputs.targets, classes, inputs.weight.shape[0], settings.rows.ignore_index
    )
    bias = None if inputs.bias is None else inputs.bias.index_select(0, classes)
    inputs = inputs._replace(targets=targets, weight=inputs.weight.index_select(0, classes), bias=bias)
    return inputs, settings._replace(rows=settings.rows._replace(ignore_index=IGNORE_INDEX))


def _among_occurring(
    inputs: LossInputs, settings: LossSettings, occurring: OccurringTokens
) -> tuple[LossInputs, LossSettings]:
    """The same loss in the compact form: one row of `weight` represents all tokens that do not occur."""
    kinds = kinds_of_rows(inputs, settings.rows.ignore_index)
    targets = torch.ops.dnagpt_fast.combined_loss_occurring_targets(inputs.targets, occurring.place, *kinds)
    weight = compact_rows(inputs.weight, occurring)
    bias = None if inputs.bias is None else compact_rows(inputs.bias, occurring)
    rows = settings.rows._replace(ignore_index=IGNORE_INDEX, rest=len(occurring.rest))
    return inputs._replace(targets=targets, weight=weight, bias=bias), settings._replace(rows=rows)


def _check_tokens(
    weight: torch.Tensor, classes: torch.Tensor | None, occurring: OccurringTokens | None, rows: RowSettings
) -> None:
    """Raises ValueError if the choice of tokens does not fit the projection or the base-level loss."""
    vocab = weight.shape[0]
    if occurring is not None:
        if classes is not None:
            raise ValueError(
                "combined_loss: classes and occurring were both given: wanted one; classes have their own softmax"
            )
        if len(occurring.place) != vocab:
            raise ValueError(
                f"combined_loss: occurring is for {len(occurring.place)} tokens, weight has {vocab} rows"
            )
        if occurring.place.device != weight.device:
            raise ValueError(
                f"combined_loss: occurring is on {occurring.place.device}, weight on {weight.device}: use occurring.to"
            )
    if not rows.base_level:
        return
    if classes is not None:
        raise ValueError(
            "combined_loss: base_level and classes were both given: wanted one; classes have no bases"
        )
    sizes = [len(Vocabulary(rows.k, dynamic)) for dynamic in (True, False)] if 1 <= rows.k <= MAX_K else []
    if vocab not in sizes:
        raise ValueError(
            f"combined_loss: base_level with k {rows.k} and {vocab} rows of weight: wanted k of 1..{MAX_K} and "
            "the rows of its vocabulary" + (f", {sizes[0]} (dynamic) or {sizes[1]} (fixed)" if sizes else "")
        )


def _check_row_weight(row_weight: torch.Tensor, hidden: torch.Tensor) -> None:
    shape = (hidden.shape[0],)
    if row_weight.shape != shape or row_weight.dtype not in FLOATS or row_weight.device != hidden.device:
        raise ValueError(
            f"combined_loss: row_weight is {row_weight.dtype} {tuple(row_weight.shape)} on {row_weight.device}: wanted "
            f"floats {shape} on {hidden.device}"
        )


def _check(inputs: LossInputs, classes: torch.Tensor | None) -> None:
    """Raises ValueError for shapes, dtypes or devices that do not fit."""
    hidden, weight, targets, bias, row_kind, gc_prediction, gc_target, gc_mask = inputs
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
            raise ValueError("combined_loss: gc_prediction was given without gc_target")
        if gc_prediction.dim() != 1:
            raise ValueError(f"combined_loss: gc_prediction is {tuple(gc_prediction.shape)}: wanted (B,)")
        wanted += [
            ("gc_prediction", gc_prediction, None, FLOATS),
            ("gc_target", gc_target, tuple(gc_prediction.shape), FLOATS),
            ("gc_mask", gc_mask, tuple(gc_prediction.shape), (torch.bool,)),
        ]
    elif gc_target is not None or gc_mask is not None:
        raise ValueError("combined_loss: gc_target or gc_mask was given without gc_prediction")
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
