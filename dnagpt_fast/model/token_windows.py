"""DNA as token windows that fit a model: the common part of `embed`, `score` and `marginals`.

A sequence is text or a range of a packed genome (packed.PackedRange). Both give the same windows; packed bases become
ids without intermediate text. Text is upper-cased, U is T, letters other than A C G T N become N (their number is
logged, through `logging`), and it is cut into k-mers from its first base. A tail shorter than k is a token in the
dynamic vocabulary; the fixed one has no token for it and drops it. Every window begins with the prefix tokens, such as
`<R>`.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.packed import PackedRange
from dnagpt_fast.vocab import reverse_complement, to_bases

_NO_BASE = re.compile("[^ACGTN]")

Source = str | PackedRange
"""A sequence: text, or a range of a packed genome."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenWindow:
    """ids: n_prefix tokens of prefix, n_context k-mers that the previous window contains too, then new k-mers."""

    ids: list[int]
    n_prefix: int
    n_context: int
    is_last: bool
    """The last window of its strand."""
    strand_bp: int
    new_bp: int
    """Bases that no earlier window covers; of all windows of a strand together its strand_bp."""


def clean_bases(text: str) -> str:
    """Upper-case A C G T N only; U is T. Raises ValueError for an empty text or one with tokens in brackets."""
    if "<" in text or ">" in text:
        raise ValueError(f"{text[:40]!r} contains tokens: wanted bases only; tokens go into `prefix`")
    if not text:
        raise ValueError("a sequence is empty")
    bases, ambiguous = to_bases(text)
    bases, foreign = _NO_BASE.subn("N", bases)
    if ambiguous + foreign:
        logger.warning("%d letter(s) of a sequence are not A C G T U N and became N", ambiguous + foreign)
    return bases


def check_is_list(sequences: object, what: str = "sequences") -> None:
    """Raises TypeError for one text where a list of them is wanted: its letters would be read as sequences."""
    if isinstance(sequences, str):
        raise TypeError(f"{what} is one str: wanted a list of them, such as [{sequences[:20]!r}]")


def prefix_ids(tokenizer: KmerTokenizer, prefix: str) -> list[int]:
    """Token ids of a prefix such as `<R>`; none for an empty one. Raises ValueError for an unknown token in it."""
    pieces = tokenizer.tokenize(prefix)
    for piece in pieces:
        if piece not in tokenizer.token_to_idx:
            raise ValueError(f"prefix {prefix!r}: {piece!r} is no token of this vocabulary")
    return [tokenizer.token_to_idx[piece] for piece in pieces]


def kmer_ids(tokenizer: KmerTokenizer, bases: str) -> np.ndarray:
    """int64 (T,). Raises ValueError if the sequence is too short for the fixed vocabulary."""
    usable = usable_bp(tokenizer, len(bases))
    return np.asarray(tokenizer.encode(bases[:usable], to_tensor=False), np.int64)


def usable_bp(tokenizer: KmerTokenizer, length_bp: int) -> int:
    """The number of bases that become tokens. Raises ValueError for a sequence too short for the fixed vocabulary."""
    if tokenizer.dynamic_kmer:
        return length_bp
    if length_bp < tokenizer.k:
        raise ValueError(f"{length_bp} bp: this vocabulary has k-mers of length {tokenizer.k} only")
    return length_bp - length_bp % tokenizer.k


class Kmers(Protocol):
    """The k-mers of one strand, by index."""

    length_bp: int
    k: int

    def __len__(self) -> int: ...

    def ids(self, start: int, stop: int) -> list[int]:
        """Token ids of k-mers start..stop - 1."""


class TextKmers:
    """The k-mers of a text, all encoded at once. bases: upper-case over ACGTN."""

    def __init__(self, tokenizer: KmerTokenizer, bases: str) -> None:
        self.length_bp, self.k = len(bases), tokenizer.k
        self._ids = kmer_ids(tokenizer, bases) if bases else np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self, start: int, stop: int) -> list[int]:
        return self._ids[start:stop].tolist()


class PackedKmers:
    """The k-mers of a range of a packed genome, encoded when they are needed."""

    def __init__(self, tokenizer: KmerTokenizer, bases: PackedRange) -> None:
        self.length_bp, self.k = len(bases), tokenizer.k
        self._tokenizer = tokenizer
        self._bases = bases.part(0, usable_bp(tokenizer, len(bases))) if len(bases) else bases

    def __len__(self) -> int:
        return -(-len(self._bases) // self.k)

    def ids(self, start: int, stop: int) -> list[int]:
        some = self._bases.part(self.k * start, min(self.k * stop, len(self._bases)))
        return self._tokenizer.encode_packed(some).tolist()


def strands(tokenizer: KmerTokenizer, source: Source, both: bool = False) -> Iterator[Kmers]:
    """The k-mers of a sequence and, with `both`, those of its reverse complement.

    Raises ValueError for a sequence that cannot be used.
    """
    if isinstance(source, PackedRange):
        if not len(source):
            raise ValueError("a sequence is empty")
        yield PackedKmers(tokenizer, source)
        if both:
            yield PackedKmers(tokenizer, source.reverse_complement())
        return
    bases = clean_bases(source)
    yield TextKmers(tokenizer, bases)
    if both:
        yield TextKmers(tokenizer, reverse_complement(bases))


def token_windows(kmers: Kmers, prefix: list[int], max_len: int, overlap: int) -> Iterator[TokenWindow]:
    """Windows of up to max_len tokens over the k-mers; each except the first begins with the last `overlap` k-mers of
    the previous one.

    Raises ValueError if prefix and overlap leave no room.
    """
    room = max_len - len(prefix)
    if not 0 <= overlap < room:
        raise ValueError(
            f"overlap = {overlap} tokens: wanted 0..{room - 1} (max_len {max_len}, prefix {len(prefix)})"
        )
    start = 0
    while True:
        context = overlap if start else 0
        stop = min(start - context + room, len(kmers))
        window = [*prefix, *kmers.ids(start - context, stop)]
        is_last = stop == len(kmers)
        new_bp = (kmers.length_bp if is_last else kmers.k * stop) - kmers.k * start
        yield TokenWindow(window, len(prefix), context, is_last, kmers.length_bp, new_bp)
        if is_last:
            return
        start = stop


def window_chunks(
    tokenizer: KmerTokenizer,
    sequences: Iterable[Source],
    prefix: list[int],
    max_len: int,
    overlap: int,
    both_strands: bool,
    tokens: int,
) -> Iterator[list[TokenWindow]]:
    """The windows of all sequences in order, in lists of about `tokens` tokens; long sequences are split between lists.
    With `both_strands` each sequence is followed by its reverse complement."""
    chunk: list[TokenWindow] = []
    held = 0
    for source in sequences:
        for kmers in strands(tokenizer, source, both_strands):
            for window in token_windows(kmers, prefix, max_len, overlap):
                chunk.append(window)
                held += len(window.ids)
                if held >= tokens:
                    yield chunk
                    chunk, held = [], 0
    if chunk:
        yield chunk
