"""Packed bases of a range -> letters."""

from typing import Any

import numpy as np

from dnagpt_fast.ops import dispatch, native
from dnagpt_fast.ops.sequence_text_reference import sequence_text as reference


def sequence_text(genome: Any, contig: int, start_bp: int, end_bp: int) -> np.ndarray:
    """Bases [start_bp, end_bp) of a contig as upper-case ASCII letters over ACGTN, uint8 (end_bp - start_bp,).

    genome: a Genome or its PackedGenome, on the CPU. Raises IndexError for an unknown contig or a range that leaves it,
    ValueError where end_bp < start_bp.
    """
    arrays = getattr(genome, "arrays", genome)
    view = native.genome_view(arrays)
    window = np.array([[contig], [start_bp]], dtype=np.int64)
    contig_address, start_address = (row.ctypes.data for row in window)
    native._native.check_windows(view, contig_address, start_address, 0, 0, 1, 0, end_bp - start_bp)
    if dispatch.choose("sequence_text", "cpu") == "reference":
        return reference(arrays, contig, start_bp, end_bp)
    letters = np.empty(end_bp - start_bp, dtype=np.uint8)
    native._native.sequence_text(view, contig, start_bp, end_bp, letters.ctypes.data)
    return letters
