"""An order-n Markov chain over bases: the baseline for a language model of DNA.

p(base | the n bases before it) =
    (count of both + PSEUDO * p(base | the n - 1 bases before it)) / (count of the n + PSEUDO),
down to order 0, which uses the uniform distribution in place of a shorter order. Where fewer than n known
bases precede a base (at the start of a window, after an N), the highest order with enough known bases is
used.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from dnagpt_fast.genome.intervals import Intervals
from dnagpt_fast.ops.kmer_tokenize import kmer_tokenize
from dnagpt_fast.packed import PackedGenome
from dnagpt_fast.vocab import N_RESERVED

N_LETTERS = 4
PSEUDO = 4.0
CHUNK_BP = 1 << 20
_CODES = np.full(256, -1)
_CODES[np.frombuffer(b"AGCT", np.uint8)] = range(4)


def base_codes(genome: PackedGenome, contig: int, start_bp: int, end_bp: int) -> np.ndarray:
    """Base codes A 0, G 1, C 2, T 3 and -1 for an unknown base; int64 (end_bp - start_bp,)."""
    ids = kmer_tokenize(genome, [contig], [start_bp], end_bp - start_bp, k=1, dtype=torch.int64)
    return ids[0].cpu().numpy() - (N_RESERVED + 1)


def text_codes(text: str) -> np.ndarray:
    """The base codes of upper-case text; -1 for letters other than A, C, G and T; int64 (len(text),)."""
    return _CODES[np.frombuffer(text.encode("ascii"), np.uint8)]


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


def joined(sequences: Iterable[np.ndarray], most_bp: int = CHUNK_BP) -> Iterator[np.ndarray]:
    """Sequences of base codes end to end, with an unknown base after each, in arrays of at most `most_bp` where one
    sequence is not longer. A chain counts and predicts each as alone: for thousands of contigs in few calls."""
    pieces: list[np.ndarray] = []
    size = 0
    for codes in sequences:
        if pieces and size + len(codes) + 1 > most_bp:
            yield np.concatenate(pieces)
            pieces, size = [], 0
        pieces += [codes, np.array([-1])]
        size += len(codes) + 1
    if pieces:
        yield np.concatenate(pieces)


class MarkovChain:
    """Counts of all (n + 1)-mers for n = 0 .. order, then `log_probs` of any order up to it."""

    def __init__(self, order: int = 5) -> None:
        if order < 0:
            raise ValueError(f"order {order}: wanted at least 0")
        self.order = order
        self.fitted_bp = 0
        self._counts = [np.zeros(N_LETTERS ** (n + 1), dtype=np.int32) for n in range(order + 1)]
        self._whole: list[np.ndarray] | None = None

    def fit(self, sequences: Iterable[np.ndarray]) -> "MarkovChain":
        """Counts sequences of base codes (see `base_codes`); returns itself."""
        for codes in joined(sequences):
            self.fitted_bp += int((codes >= 0).sum())
            mers, run = _mers(codes, self.order)
            # Each base is counted once, at the highest order for which it has enough known bases before it;
            # `_sum` adds it to the lower orders.
            for n, counts in enumerate(self._counts):
                mine = (run == n) if n < self.order else (run >= n)
                found, times = np.unique(mers[n][mine], return_counts=True)
                counts[found] += times.astype(counts.dtype)
            self._whole = None
        return self

    def log_probs(self, codes: np.ndarray, order: int | None = None, pseudo: float = PSEUDO) -> np.ndarray:
        """Log probability (nats) of each base given those before it in `codes`; 0 for unknown bases. float64 (bp,).

        order: 0..self.order, self.order by default.
        """
        return self.log_probs_by_order(codes, pseudo)[self.order if order is None else order]

    def log_probs_by_order(self, codes: np.ndarray, pseudo: float = PSEUDO) -> np.ndarray:
        """The same for every order at once, float64 (order + 1, bp): the docstring's equation from order 0 up."""
        counts = self._sum()
        mers, run = _mers(codes, self.order)
        result = np.zeros((self.order + 1, len(codes)))
        p = np.full(len(codes), 1 / N_LETTERS)
        for n in range(self.order + 1):
            both = counts[n][mers[n]]
            # Counts of the four bases after one context are adjacent.
            context = mers[n] // N_LETTERS * N_LETTERS
            total = sum(counts[n][context + letter].astype(np.int64) for letter in range(N_LETTERS))
            p = np.where(run >= n, (both + pseudo * p) / (total + pseudo), p)
            result[n] = np.log(p)
        result[:, codes < 0] = 0.0
        return result

    def _sum(self) -> list[np.ndarray]:
        """Counts of every order: counts with n bases of context, summed over the first base, are added to
        order n - 1."""
        if self._whole is None:
            whole = [self._counts[-1]]
            for own in reversed(self._counts[:-1]):
                whole.append(own + whole[-1].reshape(N_LETTERS, -1).sum(axis=0, dtype=np.int32))
            self._whole = whole[::-1]
        return self._whole


def _mers(codes: np.ndarray, order: int) -> tuple[list[np.ndarray], np.ndarray]:
    """For each n the base-4 number of the n + 1 bases that end at each place; and the count of known bases
    before it.

    The count is -1 at an unknown base. Where it is below n, the number is undefined.
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
