"""Near copies across a split: sequences that share many 16-mers with a sequence of another set, on either strand."""

from collections.abc import Sequence

import numpy as np

from dnagpt_fast.vocab import reverse_complement

SHARED_K = 16
NEAR_SHARE = 0.3
MOST_PLACES = 200
"""A k-mer at more places than this, such as a run of A, says nothing about kinship and is left out."""


def copies(tested: Sequence[str], others: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """bool (n,) twice: whether a text, or its reverse complement, is among the others; and whether at least
    NEAR_SHARE of its 16-mers, on either strand, are in one of the others."""
    known = set(others)
    same = np.array([text in known or reverse_complement(text) in known for text in tested], bool)
    row, code = _kmers(tested)
    other_row, other_code = _kmers(others)
    order = np.argsort(other_code, kind="stable")
    other_row, other_code = other_row[order], other_code[order]
    left = np.searchsorted(other_code, code, "left")
    count = np.searchsorted(other_code, code, "right") - left
    own = np.bincount(row, minlength=len(tested))
    kept = (count > 0) & (count <= MOST_PLACES)
    row, left, count = row[kept], left[kept], count[kept]
    # every place of every k-mer, as one array: the first place of each, plus 0, 1, 2 ...
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    pairs = np.repeat(row, count) * max(len(others), 1) + other_row[np.repeat(left, count) + step]
    pair, shared = np.unique(pairs, return_counts=True)
    of = pair // max(len(others), 1)
    near = same.copy()
    near[of[shared >= NEAR_SHARE * own[of]]] = True
    return same, near


def _kmers(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(row, code) of the distinct 16-mers of each text; a k-mer and its reverse complement have one code."""
    table = np.full(256, 4, np.uint64)
    table[np.frombuffer(b"ACGT", np.uint8)] = range(4)
    joined = "N".join(texts) + "N" * SHARED_K
    digits = table[np.frombuffer(joined.encode("ascii"), np.uint8)]
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
    places = len(digits) - SHARED_K + 1
    forward, backward = np.zeros(places, np.uint64), np.zeros(places, np.uint64)
    known = np.ones(places, bool)
    for j in range(SHARED_K):
        part = digits[j : j + places]
        known &= part < 4
        forward += (part & np.uint64(3)) << np.uint64(2 * (SHARED_K - 1 - j))
        backward += (np.uint64(3) - (part & np.uint64(3))) << np.uint64(2 * j)
    code = np.minimum(forward, backward)[known]
    row = np.searchsorted(starts, np.nonzero(known)[0], "right") - 1
    distinct = np.unique(np.stack([row.astype(np.uint64), code]), axis=1)
    return distinct[0].astype(np.int64), distinct[1]
