"""DNA text as token windows that a model can read: what `embed`, `score` and `marginals` share.

A sequence is upper-cased, letters other than A C G T N become N (counted, said through `logging`), and it is cut into
k-mers from its first base. A tail shorter than k is a token of its own in the dynamic vocabulary and left out in the
fixed one, which has no token for it. Every window begins with the prefix tokens, as `<R>`.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dnagpt_fast.model.tokenizer import KmerTokenizer

_NO_BASE = re.compile("[^ACGTN]")
_COMPLEMENT = str.maketrans("ACGTN", "TGCAN")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenWindow:
    """ids: prefix and k-mers. n_prefix tokens of prefix, then n_context k-mers that an earlier window covers too."""

    ids: list[int]
    n_prefix: int
    n_context: int
    is_last: bool
    """The last window of its strand."""
    strand_bp: int


def clean_bases(text: str) -> str:
    """Upper-case A C G T N only. Raises ValueError for an empty text or one that holds tokens in brackets."""
    if "<" in text or ">" in text:
        raise ValueError(f"{text[:40]!r} holds tokens: wanted bases alone; tokens go into `prefix`")
    if not text:
        raise ValueError("a sequence is empty")
    text = text.upper()
    cleaned, count = _NO_BASE.subn("N", text)
    if count:
        logger.warning("%d letter(s) of a sequence are none of A C G T N and became N", count)
    return cleaned


def reverse_complement(bases: str) -> str:
    """Of upper-case A C G T N."""
    return bases.translate(_COMPLEMENT)[::-1]


def prefix_ids(tokenizer: KmerTokenizer, prefix: str) -> list[int]:
    """Token ids of a prefix such as `<R>`; none for an empty one. Raises ValueError for an unknown token in it."""
    pieces = tokenizer.tokenize(prefix)
    for piece in pieces:
        if piece not in tokenizer.token_to_idx:
            raise ValueError(f"prefix {prefix!r}: {piece!r} is no token of this vocabulary")
    return [tokenizer.token_to_idx[piece] for piece in pieces]


def kmer_ids(tokenizer: KmerTokenizer, bases: str) -> np.ndarray:
    """int64 (T,). Raises ValueError where the fixed vocabulary has no token for so short a sequence."""
    whole = len(bases) - len(bases) % tokenizer.k
    if not tokenizer.dynamic_kmer:
        if not whole:
            raise ValueError(f"{len(bases)} bp: this vocabulary has k-mers of length {tokenizer.k} only")
        bases = bases[:whole]
    return np.asarray(tokenizer.encode(bases, to_tensor=False), np.int64)


def token_windows(
    ids: np.ndarray, prefix: list[int], max_len: int, overlap: int, strand_bp: int = 0
) -> Iterator[TokenWindow]:
    """Windows of up to max_len tokens over k-mer ids (T,); each but the first repeats the last
    `overlap` k-mers before it.

    Raises ValueError where prefix and overlap leave no room.
    """
    room = max_len - len(prefix)
    if not 0 <= overlap < room:
        raise ValueError(
            f"overlap = {overlap} tokens: wanted 0..{room - 1} (max_len {max_len}, prefix {len(prefix)})"
        )
    start = 0
    while True:
        context = overlap if start else 0
        stop = min(start - context + room, len(ids))
        window = [*prefix, *ids[start - context : stop].tolist()]
        yield TokenWindow(window, len(prefix), context, stop == len(ids), strand_bp)
        if stop == len(ids):
            return
        start = stop


def window_chunks(
    tokenizer: KmerTokenizer,
    sequences: Iterable[str],
    prefix: list[int],
    max_len: int,
    overlap: int,
    both_strands: bool,
    tokens: int,
) -> Iterator[list[TokenWindow]]:
    """The windows of all sequences in order, each sequence's reverse complement after it where both strands are
    wanted, in lists of about `tokens` tokens, however long a sequence is."""
    chunk: list[TokenWindow] = []
    held = 0
    for text in sequences:
        bases = clean_bases(text)
        for strand in (bases, reverse_complement(bases))[: 1 + both_strands]:
            for window in token_windows(kmer_ids(tokenizer, strand), prefix, max_len, overlap, len(strand)):
                chunk.append(window)
                held += len(window.ids)
                if held >= tokens:
                    yield chunk
                    chunk, held = [], 0
    if chunk:
        yield chunk
