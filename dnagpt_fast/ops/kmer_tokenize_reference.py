"""Packed bases -> k-mer ids, written for the reader.

id = first_id(k) + sum_j digit(base_j) * 5^(k-1-j), digits N A G C T = 0..4 (dnagpt_fast/vocab.py; arXiv 2307.05628).
A reversed window (orientation bit 0) is read from its last base to its first, all its bases before they are cut into
k-mers; complement (bit 1) swaps A with T and C with G; N stays N.
"""

import torch

from dnagpt_fast.packed import BASES_PER_BYTE, PackedGenome
from dnagpt_fast.vocab import Vocabulary

REVERSED = 1
COMPLEMENTED = 2
DIGIT_OF_CODE = (4, 3, 1, 2)  # T C A G


def window_codes(
    genome: PackedGenome, contig: torch.Tensor, start_bp: torch.Tensor, length_bp: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """2-bit codes uint8 (B, length_bp) of windows as they stand in the genome, and where they are N, bool."""
    position = start_bp[:, None] + torch.arange(length_bp, device=genome.device)
    byte = genome.packed[genome.byte_offset[contig][:, None] + position // BASES_PER_BYTE]
    codes = byte >> (6 - 2 * (position % BASES_PER_BYTE)).to(torch.uint8) & 3
    is_n = torch.zeros_like(codes, dtype=torch.bool)
    for row, c in enumerate(contig.tolist()):
        first, last = genome.n_block_index[c : c + 2].tolist()
        for start, end in zip(
            genome.n_block_start_bp[first:last].tolist(),
            genome.n_block_end_bp[first:last].tolist(),
            strict=True,
        ):
            is_n[row] |= (position[row] >= start) & (position[row] < end)
    return codes, is_n


def kmer_tokenize(
    genome: PackedGenome,
    contig: torch.Tensor,
    start_bp: torch.Tensor,
    n_tokens: int,
    orientation: torch.Tensor,
    k: int,
    dynamic: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Token ids (B, n_tokens) of `dtype`; contig, start_bp, orientation int64 (B,)."""
    codes, is_n = window_codes(genome, contig, start_bp, n_tokens * k)
    complemented = (orientation & COMPLEMENTED).to(torch.uint8)[:, None]
    digit = torch.tensor(DIGIT_OF_CODE, device=genome.device)[(codes ^ complemented).long()]
    digit = torch.where(is_n, 0, digit)
    digit = torch.where((orientation & REVERSED).bool()[:, None], digit.flip(1), digit)
    power = 5 ** torch.arange(k - 1, -1, -1, device=genome.device)
    kmers = digit.view(len(contig), n_tokens, k)
    return ((kmers * power).sum(2) + Vocabulary(k, dynamic).first_id(k)).to(dtype)
