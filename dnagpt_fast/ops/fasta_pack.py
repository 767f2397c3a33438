"""Text of one FASTA record -> packed bases, N runs and mask runs."""

import numpy as np

from dnagpt_fast.ops import dispatch, native
from dnagpt_fast.ops.fasta_pack_reference import END as END
from dnagpt_fast.ops.fasta_pack_reference import HEADER as HEADER
from dnagpt_fast.ops.fasta_pack_reference import LONE_RETURN as LONE_RETURN
from dnagpt_fast.ops.fasta_pack_reference import NO_LETTER as NO_LETTER
from dnagpt_fast.ops.fasta_pack_reference import FastaPacker as Reference


class FastaPacker:
    """Packs one record, fed piece by piece; holds its packed bases and runs, never its text."""

    def __init__(self) -> None:
        chosen = dispatch.choose("fasta_pack", "cpu")
        self._packer = Reference() if chosen == "reference" else native._native.FastaPacker()

    @property
    def length_bp(self) -> int:
        """Bases taken in so far."""
        return self._packer.length_bp

    @property
    def ambiguous(self) -> int:
        """How many letters other than N became N."""
        return self._packer.ambiguous

    @property
    def line_feeds(self) -> int:
        """Line feeds in all text taken in."""
        return self._packer.line_feeds

    def feed(
        self, text: bytes, start: int = 0, at_line_start: bool = True, final: bool = True
    ) -> tuple[int, int]:
        """Takes in text[start:], line ends included; returns where it stopped, and why.

        at_line_start  whether text[start] begins a line
        final          whether no text follows: else a carriage return at the very end is left for the next piece

        END: all is taken in, but for that carriage return. HEADER: a `>` begins a line here. NO_LETTER: a byte that no
        sequence has. LONE_RETURN: a carriage return without its line feed.
        """
        return self._packer.feed(text, start, at_line_start, final)

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """packed uint8 (ceil(length_bp / 4),), the last byte padded with zeros; N runs and mask runs, int64 (n, 2)
        [start_bp, end_bp), sorted, maximal. The packer is spent."""
        return self._packer.finish()
