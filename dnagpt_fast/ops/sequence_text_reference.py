"""Packed bases -> letters, in plain numpy: T=00 C=01 A=10 G=11, N under N blocks (packed.py)."""

import numpy as np

from dnagpt_fast.packed import PackedGenome

LETTER_OF_CODE = np.frombuffer(b"TCAG", np.uint8)


def sequence_text(genome: PackedGenome, contig: int, start_bp: int, end_bp: int) -> np.ndarray:
    """Upper-case ASCII letters, uint8 (end_bp - start_bp,)."""
    position = np.arange(start_bp, end_bp)
    byte = genome.packed.numpy()[int(genome.byte_offset[contig]) + position // 4]
    letters = LETTER_OF_CODE[byte >> (6 - 2 * (position % 4)).astype(np.uint8) & 3]
    first, last = genome.n_block_index[contig : contig + 2].tolist()
    for block in range(first, last):
        start, end = int(genome.n_block_start_bp[block]), int(genome.n_block_end_bp[block])
        letters[(position >= start) & (position < end)] = ord("N")
    return letters
