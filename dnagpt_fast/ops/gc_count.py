"""G + C bases and known bases of windows of a packed genome."""

from typing import Any

import torch

from dnagpt_fast.ops import dispatch, native
from dnagpt_fast.ops.gc_count_reference import gc_count as reference


def gc_count(genome: Any, contig: Any, start_bp: Any, length_bp: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """G + C bases and known (not N) bases of B windows: two int64 (B,) tensors on the genome's device.

    genome     a Genome or its PackedGenome
    contig     integers (B,): index into the genome's contigs
    start_bp   integers (B,): first base of each window
    length_bp  int or integers (B,)

    Raises IndexError for an unknown contig or a window that leaves its contig, ValueError for any other bad argument.
    """
    arrays = getattr(genome, "arrays", genome)
    device = arrays.packed.device
    contig = native.int64_row("contig", contig, device)
    start_bp = native.int64_row("start_bp", start_bp, device)
    if type(length_bp) is int:
        length_bp = torch.full_like(contig, length_bp)
    length_bp = native.int64_row("length_bp", length_bp, device)
    count = contig.numel()
    if start_bp.numel() != count or length_bp.numel() != count:
        raise ValueError(
            f"contig has {count} entries, start_bp {start_bp.numel()}, length_bp {length_bp.numel()}: "
            "wanted one of each a window"
        )

    view = native.genome_view(arrays)
    native._native.check_windows(
        view, contig.data_ptr(), start_bp.data_ptr(), 0, 0, count, length_bp.data_ptr(), 0
    )
    if dispatch.choose("gc_count", device.type) == "native":
        gc, known = torch.empty_like(contig), torch.empty_like(contig)
        native._native.gc_count(
            view,
            contig.data_ptr(),
            start_bp.data_ptr(),
            length_bp.data_ptr(),
            count,
            gc.data_ptr(),
            known.data_ptr(),
            torch.get_num_threads(),
        )
        return gc, known
    return reference(arrays, contig, start_bp, length_bp)
