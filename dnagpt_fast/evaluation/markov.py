"""An order-n Markov chain over bases: the baseline that a language model of DNA has to be measured by.

p(base | the n bases before it) =
    (count of both + PSEUDO * p(base | the n - 1 bases before it)) / (count of the n + PSEUDO),
down to order 0, which leans on the uniform distribution. Where fewer than n known bases stand before a base (start of a
window, behind an N) the longest shorter order serves.
"""

from collections.abc import Iterable

import numpy as np
import torch

from dnagpt_fast.genome.intervals import Intervals
from dnagpt_fast.ops.kmer_tokenize import kmer_tokenize
from dnagpt_fast.packed import PackedGenome
from dnagpt_fast.vocab import N_RESERVED

N_LETTERS = 4
PSEUDO = 4.0
CHUNK_BP = 1 << 20


def base_codes(genome: PackedGenome, contig: int, start_bp: int, end_bp: int) -> np.ndarray:
    """A 0, G 1, C 2, T 3 and -1 for an unknown base; int64 (end_bp - start_bp,)."""
    ids = kmer_tokenize(genome, [contig], [start_bp], end_bp - start_bp, k=1, dtype=torch.int64)
    return ids[0].cpu().numpy() - (N_RESERVED + 1)


def spread(ranges: Intervals, max_bp: int) -> list[tuple[int, int, int]]:
    """Chunks (contig, start_bp, end_bp) of at most CHUNK_BP, spread evenly over the ranges, of about max_bp in all."""
    chunks = [
        (int(contig), begin, min(begin + CHUNK_BP, int(end)))
        for contig, start, end in zip(ranges.contig, ranges.start_bp, ranges.end_bp, strict=True)
        for begin in range(int(start), int(end), CHUNK_BP)
    ]
    total = sum(end - begin for _, begin, end in chunks)
    every = max(1, -(-total // max_bp))
    return chunks[::every]


class MarkovChain:
    """Counts of all (n + 1)-mers for n = 0 .. order, then `log_probs`."""

    def __init__(self, order: int = 5) -> None:
        if order < 0:
            raise ValueError(f"order {order}: wanted at least 0")
        self.order = order
        self.fitted_bp = 0
        self._counts = [np.zeros(N_LETTERS ** (n + 1), dtype=np.int64) for n in range(order + 1)]
        self._tables: list[np.ndarray] | None = None

    def fit(self, sequences: Iterable[np.ndarray]) -> "MarkovChain":
        """Adds sequences of base codes (see `base_codes`); returns itself."""
        for codes in sequences:
            self.fitted_bp += int((codes >= 0).sum())
            mers, run = _mers(codes, self.order)
            for n, counts in enumerate(self._counts):
                counts += np.bincount(mers[n][run >= n], minlength=len(counts))
        self._tables = None
        return self

    def log_probs(self, codes: np.ndarray) -> np.ndarray:
        """Log probability (nats) of each base given those before it in `codes`; 0 for unknown bases. float64 (bp,)."""
        if self._tables is None:
            self._tables = self._smoothed()
        mers, run = _mers(codes, self.order)
        result = np.zeros(len(codes))
        for n, table in enumerate(self._tables):
            mine = (run == n) if n < self.order else (run >= n)
            result[mine] = table[mers[n][mine]]
        return result

    def _smoothed(self) -> list[np.ndarray]:
        """Log of the docstring's equation, a table of 4^(n + 1) entries for each order n."""
        shorter = np.full((1, N_LETTERS), 1 / N_LETTERS)
        tables = []
        for counts in self._counts:
            both = counts.reshape(-1, N_LETTERS).astype(np.float64)
            # Dropping the oldest base of a context takes its index modulo the number of shorter contexts.
            leaned_on = np.tile(shorter, (len(both) // len(shorter), 1))
            shorter = (both + PSEUDO * leaned_on) / (both.sum(axis=1, keepdims=True) + PSEUDO)
            tables.append(np.log(shorter).reshape(-1))
        return tables


def _mers(codes: np.ndarray, order: int) -> tuple[list[np.ndarray], np.ndarray]:
    """For each n the base-4 number of the n + 1 bases that end at each place, and how many known bases stand before it.

    The second is -1 at an unknown base; where it is below n the number means nothing.
    """
    known = codes >= 0
    place = np.arange(len(codes))
    last_unknown = np.maximum.accumulate(np.where(known, -1, place))
    run = place - last_unknown - 1
    clean = np.where(known, codes, 0)
    mers = [clean]
    for n in range(1, order + 1):
        back = np.zeros_like(clean)
        back[n:] = clean[:-n]
        mers.append(mers[-1] + back * N_LETTERS**n)
    return mers, run
