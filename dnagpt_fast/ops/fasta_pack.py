"""Text of one FASTA record -> packed bases, N runs and mask runs, fed piece by piece.

Layout as in packed.py. N and every other IUPAC letter is stored as T under an N run, as UCSC's faToTwoBit does
(https://genome.ucsc.edu/FAQ/FAQformat.html#format7); U is T. A lower-case letter of any kind belongs to a mask run.
"""

import numpy as np

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.compiled import native_module
from dnagpt_fast.packed import BASES_PER_BYTE

# why a packer stopped
END, HEADER, INVALID_LETTER, LONE_RETURN = range(4)

# One byte per letter: the 2-bit code in the two low bits, flags above them.
CODE_BITS = 0b11
IS_N = 4
IS_MASKED = 8
IS_AMBIGUOUS = 16  # an IUPAC letter other than N, or X
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


class RunCollector:
    """Runs of letters with a flag, in a stream of pieces; a run that crosses the edge of a piece is one run."""

    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = []
        self.open_start = -1

    def feed(self, flags: np.ndarray, start_bp: int) -> None:
        """flags: bool (n,) of the bases from start_bp on; each call continues where the last one ended."""
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


class FastaPackerReference:
    """FastaPacker in plain numpy, with the same methods."""

    def __init__(self) -> None:
        self.length_bp = 0
        self.ambiguous = 0
        self.line_feeds = 0
        self._packed: list[np.ndarray] = []
        self._carry = np.empty(0, np.uint8)
        self._n_runs = RunCollector()
        self._mask_runs = RunCollector()

    def feed(self, text: bytes, start: int, at_line_start: bool, final: bool) -> tuple[int, int]:
        end, stop = self._stop(text, start, at_line_start, final)
        piece = text[start:end]
        self.line_feeds += piece.count(b"\n")
        values = LETTERS[np.frombuffer(piece, np.uint8)]
        values = values[(values & IS_BLANK) == 0]
        if len(values):
            self._n_runs.feed((values & IS_N) != 0, self.length_bp)
            self._mask_runs.feed((values & IS_MASKED) != 0, self.length_bp)
            self.ambiguous += int(np.count_nonzero(values & IS_AMBIGUOUS))
            self.length_bp += len(values)
            codes = np.concatenate([self._carry, values & CODE_BITS])
            whole = len(codes) // BASES_PER_BYTE * BASES_PER_BYTE
            self._packed.append(pack_codes(codes[:whole]))
            self._carry = codes[whole:]
        return end, stop

    def _stop(self, text: bytes, start: int, at_line_start: bool, final: bool) -> tuple[int, int]:
        """(where the packer must stop, why)."""
        stops = [(len(text), END)]
        if at_line_start and text.startswith(b">", start):
            stops.append((start, HEADER))
        elif (feed := text.find(b"\n>", start)) >= 0:
            stops.append((feed + 1, HEADER))
        bad = np.flatnonzero(LETTERS[np.frombuffer(text, np.uint8, offset=start)] & IS_BAD)
        if len(bad):
            stops.append((start + int(bad[0]), INVALID_LETTER))
        place = text.find(b"\r", start)
        while place >= 0 and text[place + 1 : place + 2] == b"\n":
            place = text.find(b"\r", place + 1)
        if place >= 0 and not (final and place + 1 == len(text)):
            stops.append((place, END if place + 1 == len(text) else LONE_RETURN))
        return min(stops)

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tail = np.zeros(-len(self._carry) % BASES_PER_BYTE, np.uint8)
        packed = np.concatenate([*self._packed, pack_codes(np.concatenate([self._carry, tail]))])
        return packed, self._n_runs.finish(self.length_bp), self._mask_runs.finish(self.length_bp)


def pack_codes(codes: np.ndarray) -> np.ndarray:
    """uint8 (4 n,) of codes 0..3 -> uint8 (n,), first code in the two highest bits."""
    four = codes.reshape(-1, BASES_PER_BYTE)
    return four[:, 0] << 6 | four[:, 1] << 4 | four[:, 2] << 2 | four[:, 3]


class FastaPacker:
    """Packs one record whose text is given piece by piece; holds its packed bases and runs, never its text."""

    def __init__(self) -> None:
        chosen = dispatch.choose("fasta_pack", "cpu")
        self._packer = FastaPackerReference() if chosen == "reference" else native_module.FastaPacker()

    @property
    def length_bp(self) -> int:
        """Bases packed so far."""
        return self._packer.length_bp

    @property
    def ambiguous(self) -> int:
        """Number of letters other than N that became N."""
        return self._packer.ambiguous

    @property
    def line_feeds(self) -> int:
        """Line feeds in the text packed so far."""
        return self._packer.line_feeds

    def feed(
        self, text: bytes, start: int = 0, at_line_start: bool = True, final: bool = True
    ) -> tuple[int, int]:
        """Packs text[start:]; returns (the index at which it stopped, why).

        at_line_start  whether text[start] begins a line
        final          whether no text follows; if text follows, a carriage return at the end is left for the next piece

        END: all text was packed, except that carriage return. HEADER: a `>` begins a line here. INVALID_LETTER: a byte
        that is not a sequence letter. LONE_RETURN: a carriage return without a line feed.
        """
        return self._packer.feed(text, start, at_line_start, final)

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """packed uint8 (ceil(length_bp / 4),), the last byte padded with zeros; N runs and mask runs, int64 (n, 2)
        [start_bp, end_bp), sorted, maximal. The packer cannot be used again."""
        return self._packer.finish()
