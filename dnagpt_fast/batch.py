"""The data of a pre-training step: the interface between the genome side and the model side.

Shape letters of this project: B batch, T tokens, D width, H heads, K head size, V vocabulary, R rows (B*T).
N is never a size: N is a base.
"""

from dataclasses import dataclass, fields

import torch

IGNORE_INDEX = -100

ROW_IGNORED = 0
ROW_NEXT_TOKEN = 1
ROW_ORDER = 2


def on_device(value: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """The tensor on `device`. From the host to CUDA it is copied through pinned memory: the host goes on at once and
    the device does not wait."""
    if value.device.type == "cpu" and torch.device(device).type == "cuda":
        value = value.pin_memory()
    return value.to(device, non_blocking=True)


@dataclass(frozen=True)
class Windows:
    """The windows of the B samples; int64 (B,) each.

    start_bp is 0-based on the forward strand; orientation bit 0 = reversed, bit 1 = complemented.
    """

    genome: torch.Tensor
    contig: torch.Tensor
    start_bp: torch.Tensor
    orientation: torch.Tensor


@dataclass(frozen=True)
class PretrainBatch:
    """B samples of the template `<species> k-mers <=> <M> <=> <B>`; the last target is the order label.

    token_ids    int64 (B, T)
    targets      int64 (B, T)    next token of each position, IGNORE_INDEX where nothing is predicted
    row_kind     uint8 (B, T)    ROW_IGNORED, ROW_NEXT_TOKEN or ROW_ORDER (the position of `<B>`)
    gc_position  int             position of `<M>`, the same in every row; the regression head reads it
    gc_target    float32 (B,)    (G + C) / known bases of the window, 0..1
    gc_mask      bool (B,)       False where the window has no known base
    windows      the windows of the samples, for error messages
    row_weight   float32 (B, T)  weight of each next-token row; None: all weights are equal
    """

    token_ids: torch.Tensor
    targets: torch.Tensor
    row_kind: torch.Tensor
    gc_position: int
    gc_target: torch.Tensor
    gc_mask: torch.Tensor
    windows: Windows
    row_weight: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> "PretrainBatch":
        """The same batch with its tensors on `device`; `windows` stays on the host."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, torch.Tensor):
                moved[name] = on_device(value, device)
        return PretrainBatch(**moved)
