"""G + C bases and known bases of windows, written for the reader.

gc = sum_p [base_p in {G, C}] [p not under an N block], known = sum_p [p not under an N block]: a base under an N block
counts in neither, so gc / known is the GC fraction of what is known. G and C are the codes with the low bit set.
"""

import torch

from dnagpt_fast.ops.kmer_tokenize_reference import window_codes
from dnagpt_fast.packed import PackedGenome


def gc_count(
    genome: PackedGenome, contig: torch.Tensor, start_bp: torch.Tensor, length_bp: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(gc, known), int64 (B,) each; contig, start_bp, length_bp int64 (B,)."""
    gc, known = torch.zeros_like(contig), torch.zeros_like(contig)
    for row, length in enumerate(length_bp.tolist()):
        codes, is_n = window_codes(genome, contig[row : row + 1], start_bp[row : row + 1], length)
        gc[row] = (codes.bitwise_and(1).bool() & ~is_n).sum()
        known[row] = (~is_n).sum()
    return gc, known
