"""Text -> token ids with the rules of the official KmerTokenizer (arXiv 2307.05628), written for the reader.

Text is split at `<` and `>`; a piece that is a reserved name becomes that token, an empty piece vanishes, anything else
is cut from the left into chunks of k characters. A chunk that the vocabulary lacks becomes the unknown token.
"""

import re

import numpy as np

from dnagpt_fast.vocab import BASES, N_RESERVED, Vocabulary


def text_encode(
    text: str, vocabulary: Vocabulary, reserved: list[str], unknown_id: int
) -> tuple[np.ndarray, int]:
    """(ids int64 (T,), how many chunks are unknown). reserved: names without brackets in id order; k-mers follow."""
    ids, unknown = [], 0
    for piece in filter(None, re.split("[<>]", text)):
        if piece in reserved:
            ids.append(reserved.index(piece))
            continue
        for chunk in (piece[i : i + vocabulary.k] for i in range(0, len(piece), vocabulary.k)):
            has_length = vocabulary.dynamic or len(chunk) == vocabulary.k
            if has_length and set(chunk) <= set(BASES):
                ids.append(vocabulary.kmer_id(chunk) + len(reserved) - N_RESERVED)
            else:
                ids.append(unknown_id)
                unknown += 1
    return np.array(ids, dtype=np.int64), unknown
