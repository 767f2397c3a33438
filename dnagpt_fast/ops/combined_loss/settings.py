"""The arguments of every implementation of the combined loss: its tensors, and its settings as one object."""

from typing import NamedTuple

import torch

from dnagpt_fast.batch import IGNORE_INDEX

REDUCTIONS = ("mean", "sum", "none")


class LossInputs(NamedTuple):
    """The tensors of `ops.combined_loss`, on one device."""

    hidden: torch.Tensor  # (R, D)
    weight: torch.Tensor  # (V, D)
    targets: torch.Tensor  # int64 (R,)
    bias: torch.Tensor | None = None  # (V,)
    row_kind: torch.Tensor | None = None  # uint8 (R,)
    gc_prediction: torch.Tensor | None = None  # (B,)
    gc_target: torch.Tensor | None = None  # (B,)
    gc_mask: torch.Tensor | None = None  # bool (B,)


class RowSettings(NamedTuple):
    """The settings of the loss of one row; the schemas of the ops list them in this order (ROW_SCHEMA)."""

    ignore_index: int = IGNORE_INDEX
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    soft_cap: float | None = None
    skip_below: float | None = None
    base_level: float = 0.0  # share of the base-level loss in next-token rows whose target is a plain k-mer
    k: int = 0  # length of the k-mers, if base_level is not 0
    rest: int = 0  # n >= 1: the compact form (occurring.py), whose last entry represents n equal entries

    def entries(self, rows: int) -> int:
        """The number of vocabulary entries that the `rows` rows of the projection represent."""
        return rows - 1 + self.rest if self.rest else rows

    @property
    def may_skip(self) -> bool:
        """Whether the backward pass may skip tiles: with label smoothing every entry has a gradient."""
        return self.skip_below is not None and self.label_smoothing == 0.0


ROW_SCHEMA = (
    "int ignore_index, float label_smoothing, float z_loss, float? soft_cap, float? skip_below,"
    " float base_level, int k, int rest"
)


class LossSettings(NamedTuple):
    """The weights and the reduction of the rows, and the settings of each row."""

    order_weight: float = 1.0
    gc_weight: float = 0.01
    reduction: str = "mean"
    rows: RowSettings = RowSettings()


class LossParts(NamedTuple):
    """The result of an implementation, in float32 or float64; see CombinedLoss. log_probs has no gradient."""

    total: torch.Tensor
    next_token: torch.Tensor
    order: torch.Tensor
    gc: torch.Tensor
    log_probs: torch.Tensor


def check_settings(settings: LossSettings) -> None:
    """Raises ValueError for a setting out of its range."""
    rows = settings.rows
    if settings.reduction not in REDUCTIONS:
        raise ValueError(
            f"combined_loss: reduction {settings.reduction!r}: wanted one of {', '.join(REDUCTIONS)}"
        )
    if not 0.0 <= rows.label_smoothing <= 1.0:
        raise ValueError(f"combined_loss: label_smoothing {rows.label_smoothing}: wanted 0..1")
    if rows.z_loss < 0.0:
        raise ValueError(f"combined_loss: z_loss {rows.z_loss}: wanted 0 or more")
    if rows.soft_cap is not None and not rows.soft_cap > 0.0:
        raise ValueError(f"combined_loss: soft_cap {rows.soft_cap}: wanted a positive number or None")
    if rows.skip_below is not None and not 0.0 < rows.skip_below <= 2**-12:
        raise ValueError(
            f"combined_loss: skip_below {rows.skip_below}: wanted None or a probability in (0, 2^-12]"
        )
    if not 0.0 <= rows.base_level <= 1.0:
        raise ValueError(f"combined_loss: base_level {rows.base_level}: wanted a share, 0..1")
    if rows.base_level:
        if rows.label_smoothing:
            raise ValueError(
                f"combined_loss: base_level {rows.base_level} and label_smoothing {rows.label_smoothing}: "
                "smoothing has no meaning for bases; one of the two must be 0"
            )
        if rows.skip_below is not None:
            raise ValueError(
                f"combined_loss: base_level {rows.base_level} and skip_below {rows.skip_below}: entries of any "
                "probability get a gradient from their bases; one of the two must be off"
            )
