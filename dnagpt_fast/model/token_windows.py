"""DNA as token windows that fit a model: the common part of `embed`, `score` and `marginals`.

A sequence is text or a range of a packed genome (packed.PackedRange). Both give the same windows; packed bases become
ids without intermediate text. Text is upper-cased, U is T, letters other than A C G T N become N (their number is
logged, through `logging`), and it is cut into k-mers from its first base. A tail shorter than k is a token in the
dynamic vocabulary; the fixed one has no token for it and drops it. Every window begins with the prefix tokens, such as
`<R>`.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from dnagpt_fast.model.sequences import Source, naming_row, sequence_of, sequences_of
from dnagpt_fast.model.tokenizer import KmerTokenizer, indices_of
from dnagpt_fast.packed import PackedRange
from dnagpt_fast.vocab import reverse_complement, to_bases

_NO_BASE = re.compile("[^ACGTN]")

logger = logging.getLogger(__name__)


class TokenWindow(NamedTuple):
    """ids: int64 (T,): n_prefix tokens of prefix, n_context k-mers that the previous window contains too, then new
    k-mers."""

    ids: np.ndarray
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

    def ids(self, start: int, stop: int) -> np.ndarray:
        """Token ids of k-mers start..stop - 1, int64 (stop - start,)."""


class TextKmers:
    """The k-mers of a text, all encoded at once. bases: upper-case over ACGTN."""

    def __init__(self, tokenizer: KmerTokenizer, bases: str) -> None:
        self.length_bp, self.k = len(bases), tokenizer.k
        self._ids = kmer_ids(tokenizer, bases) if bases else np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self, start: int, stop: int) -> np.ndarray:
        return self._ids[start:stop]


class PackedKmers:
    """The k-mers of a range of a packed genome, encoded when they are needed."""

    def __init__(self, tokenizer: KmerTokenizer, bases: PackedRange) -> None:
        self.bases, self.tokenizer = bases, tokenizer
        self.length_bp, self.k = len(bases), tokenizer.k
        self.usable_bp = usable_bp(tokenizer, self.length_bp) if self.length_bp else 0

    def __len__(self) -> int:
        return -(-self.usable_bp // self.k)

    def ids(self, start: int, stop: int) -> np.ndarray:
        some = self.bases.part(self.k * start, min(self.k * stop, self.usable_bp))
        return self.tokenizer.encode_packed(some).cpu().numpy()


def strands(tokenizer: KmerTokenizer, source: Any, both: bool = False) -> Iterator[Kmers]:
    """The k-mers of a sequence (model/sequences.py) and, with `both`, those of its reverse complement.

    Raises ValueError for a sequence that cannot be used, TypeError for what is none.
    """
    source = sequence_of(source)
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


class Span(NamedTuple):
    """The k-mers first..stop - 1 of a strand, which one window contains; the previous one contains the first `context`
    of them too."""

    kmers: Kmers
    first: int
    stop: int
    context: int
    is_last: bool
    new_bp: int


def spans(kmers: Kmers, room: int, overlap: int) -> Iterator[Span]:
    """Spans of up to `room` k-mers; each except the first begins with the last `overlap` k-mers of the previous one."""
    start, count, context = 0, len(kmers), 0
    while True:
        stop = min(start - context + room, count)
        is_last = stop == count
        new_bp = (kmers.length_bp if is_last else kmers.k * stop) - kmers.k * start
        yield Span(kmers, start - context, stop, context, is_last, new_bp)
        if is_last:
            return
        start, context = stop, overlap


def checked_room(prefix: list[int], max_len: int, overlap: int) -> int:
    """The k-mers that a window holds. Raises ValueError if prefix and overlap leave no room."""
    room = max_len - len(prefix)
    if not 0 <= overlap < room:
        raise ValueError(
            f"overlap = {overlap} tokens: wanted 0..{room - 1} (max_len {max_len}, prefix {len(prefix)})"
        )
    return room


def token_windows(kmers: Kmers, prefix: list[int], max_len: int, overlap: int) -> Iterator[TokenWindow]:
    """Windows of up to max_len tokens over the k-mers; each except the first begins with the last `overlap` k-mers of
    the previous one.

    Raises ValueError if prefix and overlap leave no room.
    """
    for span in spans(kmers, checked_room(prefix, max_len, overlap), overlap):
        yield from encoded([span], prefix)


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
    With `both_strands` each sequence is followed by its reverse complement. Errors name the row of a sequence."""
    room = checked_room(prefix, max_len, overlap)
    chunk: list[Span] = []
    held = 0
    for row, source in sequences_of(sequences):
        with naming_row(row):
            of_row = list(strands(tokenizer, source, both_strands))
        for kmers in of_row:
            for span in spans(kmers, room, overlap):
                chunk.append(span)
                held += len(prefix) + span.stop - span.first
                if held >= tokens:
                    yield encoded(chunk, prefix)
                    chunk, held = [], 0
    if chunk:
        yield encoded(chunk, prefix)


def encoded(chunk: Sequence[Span], prefix: list[int]) -> list[TokenWindow]:
    """The windows of these spans. Ranges of one genome are encoded together: a call takes longer than a short range."""
    counts = np.array([span.stop - span.first for span in chunk])
    ends = np.cumsum(counts + len(prefix))
    begins = ends - counts  # of the k-mers
    flat = np.empty(ends[-1], np.int64)
    for i, token in enumerate(prefix):
        flat[begins - len(prefix) + i] = token
    packed: dict[int, list[int]] = {}
    for i, span in enumerate(chunk):
        if isinstance(span.kmers, PackedKmers):
            packed.setdefault(id(span.kmers.bases.genome), []).append(i)
        else:
            flat[begins[i] : ends[i]] = span.kmers.ids(span.first, span.stop)
    for members in packed.values():
        ids = _ids_of_ranges(
            [cast(PackedKmers, chunk[i].kmers) for i in members], [chunk[i] for i in members]
        )
        flat[indices_of(begins[members], counts[members])] = ids
    return [
        TokenWindow(
            flat[begin:end], len(prefix), span.context, span.is_last, span.kmers.length_bp, span.new_bp
        )
        for span, begin, end in zip(chunk, (begins - len(prefix)).tolist(), ends.tolist(), strict=True)
    ]


def _ids_of_ranges(kmers: Sequence[PackedKmers], chunk: Sequence[Span]) -> np.ndarray:
    """The ids of spans of ranges of one genome, concatenated."""
    k, genome = kmers[0].k, kmers[0].bases.genome
    rows = [
        (
            one.bases.contig,
            one.bases.start_bp,
            one.bases.end_bp,
            one.bases.reverse,
            one.usable_bp,
            span.first,
            span.stop,
        )
        for one, span in zip(kmers, chunk, strict=True)
    ]
    contig, start_bp, end_bp, reverse, usable, first, stop = np.array(rows, np.int64).T
    skipped = k * first
    length = np.minimum(k * stop, usable) - skipped
    start = np.where(reverse, end_bp - skipped - length, start_bp + skipped)
    return kmers[0].tokenizer.encode_ranges(genome, contig, start, length, reverse).cpu().numpy()
