"""Packed bases of a range -> letters: T=00 C=01 A=10 G=11, N under N blocks (packed.py)."""

from typing import Any

import numpy as np

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.compiled import native_module
from dnagpt_fast.ops.host_genome import HostGenome
from dnagpt_fast.packed import PackedRange
from dnagpt_fast.vocab import reverse_complement

LETTER_OF_CODE = np.frombuffer(b"TCAG", np.uint8)


def sequence_text_reference(genome: HostGenome, contig: int, start_bp: int, end_bp: int) -> np.ndarray:
    """Upper-case ASCII letters, uint8 (end_bp - start_bp,)."""
    position = np.arange(start_bp, end_bp)
    byte = genome.packed[int(genome.byte_offset[contig]) + position // 4]
    letters = LETTER_OF_CODE[byte >> (6 - 2 * (position % 4)).astype(np.uint8) & 3]
    first, last = genome.n_block_index[contig : contig + 2].tolist()
    for block in range(first, last):
        start, end = int(genome.n_block_start_bp[block]), int(genome.n_block_end_bp[block])
        letters[(position >= start) & (position < end)] = ord("N")
    return letters


def sequence_text(genome: Any, contig: int, start_bp: int, end_bp: int) -> np.ndarray:
    """Bases [start_bp, end_bp) of a contig as upper-case ASCII letters over ACGTN, uint8 (end_bp - start_bp,).

    genome: a Genome, or its arrays on the CPU. Raises IndexError for an unknown contig or a range that leaves it,
    ValueError if end_bp < start_bp or the genome is on another device.

    >>> from pathlib import Path
    >>> from dnagpt_fast import Genome
    >>> _ = Path("one.fa").write_text(">one\\nacgTN\\n")
    >>> sequence_text(Genome.open("one.fa"), 0, 1, 5).tobytes()
    b'CGTN'
    """
    host = HostGenome.of(genome)
    # compared here, because the native check of a short range takes longer than its letters
    if not (0 <= contig < len(host.length_bp) and 0 <= start_bp <= end_bp <= host.length_bp[contig]):
        window = np.array([[contig], [start_bp]], dtype=np.int64)
        contig_address, start_address = (row.ctypes.data for row in window)
        native_module.check_windows(host.view, contig_address, start_address, 0, 0, 1, 0, end_bp - start_bp)
    if dispatch.choose("sequence_text", "cpu") == "reference":
        return sequence_text_reference(host, contig, start_bp, end_bp)
    letters = np.empty(end_bp - start_bp, dtype=np.uint8)
    address = letters.__array_interface__["data"][0]  # three times as fast as letters.ctypes.data
    native_module.sequence_text(host.view, contig, start_bp, end_bp, address)
    return letters


def letters_of_range(bases: PackedRange) -> str:
    """The text of a range of a genome on the CPU, on the strand of the range: upper case over ACGTN."""
    letters = sequence_text(bases.genome, bases.contig, bases.start_bp, bases.end_bp)
    text = letters.tobytes().decode("ascii")
    return reverse_complement(text) if bases.reverse else text
