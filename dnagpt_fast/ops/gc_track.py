"""G + C bases and known bases along a whole contig."""

from typing import Any

import torch

from dnagpt_fast.ops import dispatch, native
from dnagpt_fast.ops.gc_count import gc_count


def gc_track(
    genome: Any, contig: int | str, window_bp: int, step_bp: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """G + C and known (not N) bases of the windows that begin at 0, step_bp, 2 step_bp, ... of a contig.

    genome     a Genome or its PackedGenome
    contig     index of the contig, or its name where the genome has `names`
    window_bp  length of a window; those that reach over the contig's end are cut there
    step_bp    from one start to the next; None: window_bp, tiles side by side

    Two int64 (ceil(length / step_bp),) tensors on the genome's device. Raises IndexError for an unknown contig index,
    ValueError for an unknown name and for lengths below 1.
    """
    arrays = getattr(genome, "arrays", genome)
    step_bp = window_bp if step_bp is None else step_bp
    for name, value in (("window_bp", window_bp), ("step_bp", step_bp)):
        if type(value) is not int or not 1 <= value < 1 << 62:
            raise ValueError(f"{name} = {value!r}: wanted an integer >= 1")
    if isinstance(contig, str):
        names = list(getattr(genome, "names", ()))
        if contig not in names:
            raise ValueError(
                f"contig {contig!r}: the genome has {', '.join(names[:10]) or 'no names, only indices'}"
            )
        contig = names.index(contig)
    n_contigs = arrays.length_bp.numel()
    if not 0 <= contig < n_contigs:
        raise IndexError(f"contig {contig}: the genome has contigs 0..{n_contigs - 1}")
    device = arrays.packed.device
    length_bp = int(arrays.length_bp[contig])
    n_windows = -(-length_bp // step_bp)

    if device.type == "cpu" and dispatch.choose("gc_count", "cpu") == "native":
        gc, known = (torch.empty(n_windows, dtype=torch.int64) for _ in range(2))
        view = native.genome_view(arrays)
        native._native.gc_track(
            view,
            contig,
            window_bp,
            step_bp,
            n_windows,
            gc.data_ptr(),
            known.data_ptr(),
            torch.get_num_threads(),
        )
        return gc, known
    start_bp = torch.arange(n_windows, device=device) * step_bp
    return gc_count(
        arrays, torch.full_like(start_bp, contig), start_bp, (length_bp - start_bp).clamp(max=window_bp)
    )
