"""G + C bases and known bases of windows of a packed genome, and along a whole contig.

gc = sum_p [base_p in {G, C}] [p not under an N block], known = sum_p [p not under an N block]: a base under an N block
counts in neither, so gc / known is the GC fraction of the known bases. G and C are the codes with the low bit set.
"""

from typing import Any

import torch

from dnagpt_fast.ops import dispatch, native
from dnagpt_fast.ops.kmer_tokenize import window_codes
from dnagpt_fast.ops.output import two_outputs
from dnagpt_fast.ops.registration import register_op
from dnagpt_fast.packed import PackedGenome


def gc_count_reference(
    genome: PackedGenome, contig: torch.Tensor, start_bp: torch.Tensor, length_bp: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(gc, known), int64 (B,) each; contig, start_bp, length_bp int64 (B,)."""
    gc, known = torch.zeros_like(contig), torch.zeros_like(contig)
    for row, length in enumerate(length_bp.tolist()):
        codes, is_n = window_codes(genome, contig[row : row + 1], start_bp[row : row + 1], length)
        gc[row] = (codes.bitwise_and(1).bool() & ~is_n).sum()
        known[row] = (~is_n).sum()
    return gc, known


def gc_count(
    genome: Any,
    contig: Any,
    start_bp: Any,
    length_bp: Any,
    *,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """G + C bases and known (not N) bases of B windows: two int64 (B,) tensors on the genome's device.

    genome     a Genome or its PackedGenome
    contig     integers (B,): index into the genome's contigs
    start_bp   integers (B,): first base of each window
    length_bp  int or integers (B,)
    out        two contiguous int64 (B,) tensors on that device, to write into and return; None: new tensors

    Raises IndexError for an unknown contig or a window that leaves its contig, ValueError for any other bad argument.

    The host does not read windows in device memory: the kernel writes counts of 0 for a window that leaves its contig,
    and the next call on this genome, or ops.synchronize(genome), raises IndexError.

    >>> from pathlib import Path
    >>> from dnagpt_fast import Genome
    >>> _ = Path("one.fa").write_text(">one\\nACGTNN\\n")
    >>> gc, known = gc_count(Genome.open("one.fa"), [0], [0], 6)
    >>> gc.tolist(), known.tolist()
    ([2], [4])
    """
    arrays = getattr(genome, "arrays", genome)
    device = arrays.packed.device
    on_host = native.on_host(device)
    if torch.compiler.is_compiling():
        length_bp = torch.full_like(contig, length_bp) if type(length_bp) is int else length_bp
        counts = torch.ops.dnagpt_fast.gc_count(*native.six_arrays(arrays), contig, start_bp, length_bp)
        return counts if out is None else (out[0].copy_(counts[0]), out[1].copy_(counts[1]))
    same, rows = 0, {"contig": contig, "start_bp": start_bp}
    if type(length_bp) is int:
        same = length_bp
    else:
        rows["length_bp"] = length_bp
    rows, rows_on_host = native.window_rows(device, **rows)
    count = rows["contig"].numel()
    addresses = contig_at, start_at, length_at = _addresses(rows)
    if rows_on_host:
        native._native.check_windows(
            native.genome_view(arrays), contig_at, start_at, 0, 0, count, length_at, same
        )
    elif same < 0:
        raise ValueError(f"length_bp = {same}: wanted 0 or more")
    if not on_host:
        rows = native.on_device(device, rows)
    gc, known = two_outputs(out, (count,), torch.int64, device)
    if dispatch.choose("gc_count", device.type) == "reference":
        each = rows.get("length_bp", torch.full_like(rows["contig"], same))
        counts = gc_count_reference(arrays, rows["contig"], rows["start_bp"], each)
        return gc.copy_(counts[0]), known.copy_(counts[1])
    what = (same, count, gc.data_ptr(), known.data_ptr())
    if on_host:
        view = native.genome_view(arrays)
        native._native.gc_count(view, *addresses, *what, torch.get_num_threads())
    else:
        genome_on_device, stream = native.cuda_genome(arrays), native.current_stream(device)
        native._native.gc_count_cuda(genome_on_device.view, *_addresses(rows), *what, stream)
    return gc, known


def _addresses(rows: dict[str, torch.Tensor]) -> tuple[int, int, int]:
    length = rows["length_bp"].data_ptr() if "length_bp" in rows else 0
    return rows["contig"].data_ptr(), rows["start_bp"].data_ptr(), length


def gc_track(
    genome: Any,
    contig: int | str,
    window_bp: int,
    step_bp: int | None = None,
    *,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """G + C and known (not N) bases of the windows that begin at 0, step_bp, 2 step_bp, ... of a contig.

    genome     a Genome or its PackedGenome
    contig     index of the contig, or its name if the genome has names
    window_bp  length of a window; windows that extend past the contig's end are cut there
    step_bp    from one start to the next; None: window_bp, so that windows are adjacent
    out        two contiguous tensors of that shape and dtype on that device, to write into and return; None: new ones

    Returns two int64 (ceil(length / step_bp),) tensors on the genome's device. Raises IndexError for an unknown contig
    index, ValueError for an unknown name, for lengths below 1, and for an `out` that does not fit.
    """
    arrays = getattr(genome, "arrays", genome)
    step_bp = window_bp if step_bp is None else step_bp
    for name, value in (("window_bp", window_bp), ("step_bp", step_bp)):
        if type(value) is not int or not 1 <= value < 1 << 62:
            raise ValueError(f"{name} = {value!r}: wanted an integer >= 1")
    if isinstance(contig, str):
        if not hasattr(genome, "contigs"):
            raise ValueError(f"contig {contig!r}: the genome has no names, only indices")
        number: int = genome.contigs.find(contig)
    else:
        number = contig
    n_contigs = arrays.length_bp.numel()
    if not 0 <= number < n_contigs:
        raise IndexError(f"contig {number}: the genome has contigs 0..{n_contigs - 1}")
    device = arrays.packed.device
    length_bp = int(arrays.length_bp[number])
    n_windows = -(-length_bp // step_bp)

    if device.type == "cpu" and dispatch.choose("gc_count", "cpu") == "native":
        gc, known = two_outputs(out, (n_windows,), torch.int64, device)
        view = native.genome_view(arrays)
        native._native.gc_track(
            view,
            number,
            window_bp,
            step_bp,
            n_windows,
            gc.data_ptr(),
            known.data_ptr(),
            torch.get_num_threads(),
        )
        return gc, known
    start_bp = torch.arange(n_windows, device=device) * step_bp
    window = (length_bp - start_bp).clamp(max=window_bp)
    return gc_count(arrays, torch.full_like(start_bp, number), start_bp, window, out=out)


def _gc_count(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    contig, start_bp, length_bp = arguments[6:]
    return gc_count(native.genome_of(*arguments[:6]), contig, start_bp, length_bp)


def _shape_of_gc_count(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    packed, contig = arguments[0], arguments[6]
    row = packed.new_empty(contig.shape, dtype=torch.int64)
    return row, torch.empty_like(row)


# What torch.compile sees: one op over the six arrays of a genome, which it does not trace into.
register_op(
    f"gc_count({native.SCHEMA}, Tensor contig, Tensor start_bp, Tensor window_bp) -> (Tensor, Tensor)",
    _gc_count,
    fake=_shape_of_gc_count,
)
