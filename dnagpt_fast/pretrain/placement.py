"""The place of a run's packed bases: in the memory of the training device, or mapped in host memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dnagpt_fast.packed import PackedGenome

GB = 10**9
# Share of the device's free memory; the rest is for communication buffers, kernels and fragmentation.
USABLE_SHARE = 0.92


@dataclass(frozen=True)
class Placement:
    """resident: whether the bases are on the training device. packed_bytes: of all genomes. reason: for the
    log."""

    resident: bool
    packed_bytes: int
    reason: str


def place(packed_bytes: int, free_bytes: int, model_bytes: int) -> Placement:
    """Resident if all packed genomes fit together with the model; never only some, because one call draws
    from all.

    free_bytes   free memory of the device before the model is made
    model_bytes  peak memory of the model and a training step
    """
    left = int(free_bytes * USABLE_SHARE) - model_bytes
    resident = packed_bytes <= left
    sums = (
        f"{_size(free_bytes)} free, {USABLE_SHARE:.0%} of it usable, {_size(model_bytes)} for the training step: "
        f"{_size(max(left, 0))} left"
    )
    return Placement(resident, packed_bytes, sums)


def place_on(device: torch.device, genomes: Sequence[PackedGenome], model_bytes: int) -> Placement:
    """The placement for this device with its current free memory. On the CPU the mapped files are used."""
    packed_bytes = sum(genome.packed.numel() for genome in genomes)
    if device.type != "cuda":
        return Placement(False, packed_bytes, "the CPU reads the mapped files")
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return place(packed_bytes, free_bytes, model_bytes)


def log_line(placement: Placement, genomes: int, device: torch.device) -> str:
    """The line about the placement in the log."""
    where = f"resident on {device}" if placement.resident else "mapped in host memory"
    return (
        f"corpus: {genomes} genome(s), {_size(placement.packed_bytes)} packed, {where} ({placement.reason})"
    )


def _size(count: int) -> str:
    return f"{count / GB:,.1f} GB" if count >= GB else f"{count / 10**6:,.1f} MB"
