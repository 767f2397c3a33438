"""Sequence text -> packed bases, N runs and mask runs, fed piece by piece with bounded memory.

Layout as in packed.py. N and every other IUPAC letter is stored as T under an N run, as UCSC's faToTwoBit does; U is T.
A lower-case letter of any kind belongs to a mask run.
"""

from dataclasses import dataclass

import numpy as np

from dnagpt_fast.packed import BASES_PER_BYTE

# One byte per letter: the 2-bit code in the two low bits, flags above them.
CODE_BITS = 0b11
IS_N = 4
IS_MASKED = 8
IS_AMBIGUOUS = 16  # a IUPAC letter other than N, or X
IS_BLANK = 32
IS_BAD = 64

AMBIGUOUS_LETTERS = b"RYKMSWBDHVX"


def _letter_table() -> np.ndarray:
    table = np.full(256, IS_BAD, np.uint8)
    for letters, value in (
        (b"TU", 0),
        (b"C", 1),
        (b"A", 2),
        (b"G", 3),
        (b"N", IS_N),
        (AMBIGUOUS_LETTERS, IS_N | IS_AMBIGUOUS),
    ):
        for letter in letters:
            table[letter] = value
            table[letter + 32] = value | IS_MASKED
    for letter in b"\r\n\t ":
        table[letter] = IS_BLANK
    return table


LETTERS = _letter_table()


@dataclass(frozen=True)
class PackedRecord:
    """One contig: packed uint8 (ceil(length_bp / 4),), the last byte padded with zeros.

    n_blocks, mask_blocks: int64 (n, 2) [start_bp, end_bp); ambiguous: how many letters other than N became N.
    """

    name: str
    length_bp: int
    packed: np.ndarray
    n_blocks: np.ndarray
    mask_blocks: np.ndarray
    ambiguous: int = 0


class RunCollector:
    """Runs of a flag over a stream of pieces; a run that crosses a piece's edge comes out as one."""

    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = []
        self.open_start = -1

    def feed(self, flags: np.ndarray, start_bp: int) -> None:
        """flags: bool (n,), the first of them at start_bp; calls follow one another without gaps."""
        edges = np.flatnonzero(flags[1:] != flags[:-1]) + 1 + start_bp
        if flags[0] != (self.open_start >= 0):
            edges = np.concatenate([[start_bp], edges])
        if self.open_start >= 0:
            edges = np.concatenate([[self.open_start], edges])
        self.open_start = int(edges[-1]) if len(edges) % 2 else -1
        self.pieces.append(edges[: len(edges) // 2 * 2].astype(np.int64).reshape(-1, 2))

    def finish(self, end_bp: int) -> np.ndarray:
        """All runs, int64 (n, 2)."""
        last = [[self.open_start, end_bp]] if self.open_start >= 0 else []
        return np.concatenate([*self.pieces, np.array(last, np.int64).reshape(-1, 2)])


class RecordPacker:
    """Packs one contig. `feed` takes text as it stands in the file, line ends included."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.length_bp = 0
        self.ambiguous = 0
        self._packed: list[np.ndarray] = []
        self._carry = np.empty(0, np.uint8)
        self._n_runs = RunCollector()
        self._mask_runs = RunCollector()

    def feed(self, text: bytes | memoryview) -> int:
        """Takes the text in; returns -1, or the place in `text` of the first letter that no sequence has."""
        values = LETTERS[np.frombuffer(text, np.uint8)]
        seen = np.bitwise_or.reduce(values, initial=0)
        if seen & IS_BAD:
            return int(np.argmax(values & IS_BAD))
        if seen & IS_BLANK:
            values = values[(values & IS_BLANK) == 0]
        if len(values) == 0:
            return -1
        self._n_runs.feed((values & IS_N) != 0, self.length_bp)
        self._mask_runs.feed((values & IS_MASKED) != 0, self.length_bp)
        if seen & IS_AMBIGUOUS:
            self.ambiguous += int(np.count_nonzero(values & IS_AMBIGUOUS))
        self.length_bp += len(values)
        codes = np.concatenate([self._carry, values & CODE_BITS])
        whole = len(codes) // BASES_PER_BYTE * BASES_PER_BYTE
        self._packed.append(pack_codes(codes[:whole]))
        self._carry = codes[whole:]
        return -1

    def finish(self) -> PackedRecord:
        """The contig; the packer is spent."""
        tail = np.zeros(-len(self._carry) % BASES_PER_BYTE, np.uint8)
        packed = np.concatenate([*self._packed, pack_codes(np.concatenate([self._carry, tail]))])
        n_blocks, mask_blocks = self._n_runs.finish(self.length_bp), self._mask_runs.finish(self.length_bp)
        return PackedRecord(self.name, self.length_bp, packed, n_blocks, mask_blocks, self.ambiguous)


def pack_codes(codes: np.ndarray) -> np.ndarray:
    """uint8 (4 n,) of codes 0..3 -> uint8 (n,), first code in the two highest bits."""
    four = codes.reshape(-1, BASES_PER_BYTE)
    return four[:, 0] << 6 | four[:, 1] << 4 | four[:, 2] << 2 | four[:, 3]
