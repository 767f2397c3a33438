"""Text -> token ids with the rules of the official KmerTokenizer (arXiv 2307.05628): what KmerTokenizer.encode runs.

Text is split at `<` and `>`; a piece that is a reserved name becomes that token, an empty piece vanishes, any other
piece is cut from the left into chunks of k characters. A chunk that the vocabulary lacks becomes the unknown token.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch

from dnagpt_fast.ops import dispatch, native
from dnagpt_fast.vocab import BASES, N_RESERVED, Vocabulary


def text_encode_reference(
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


class TextEncoder:
    """Encodes texts over one vocabulary.

    vocabulary  k and whether shorter k-mers have ids
    reserved    names without brackets in id order; the k-mers' ids follow them
    unknown_id  for a chunk that the vocabulary lacks
    """

    def __init__(self, vocabulary: Vocabulary, reserved: Sequence[str], unknown_id: int) -> None:
        self.vocabulary = vocabulary
        self.reserved = list(reserved)
        self.unknown_id = unknown_id
        self._native = native._native.TextEncoder(vocabulary.k, vocabulary.dynamic, self.reserved, unknown_id)
        # its new_empty is the cheapest way to allocate, which counts for a short text
        self._none = torch.empty(0, dtype=torch.int64)

    def __reduce__(self) -> tuple:
        """Copied and pickled by its arguments: the native object holds addresses."""
        return TextEncoder, (self.vocabulary, self.reserved, self.unknown_id)

    def __call__(self, text: str) -> tuple[torch.Tensor, int]:
        """(ids int64 (T,), how many chunks are unknown). Raises TypeError for anything but a str."""
        if not isinstance(text, str):
            raise TypeError(f"text is {type(text).__name__}: wanted str")
        # the kernel counts bytes, chunks are of characters: other texts than ASCII are rare, and have unknown chunks
        if dispatch.choose("text_encode", "cpu") == "reference" or not text.isascii():
            found, unknown = text_encode_reference(text, self.vocabulary, self.reserved, self.unknown_id)
            return torch.from_numpy(found), unknown
        ids = self._none.new_empty(self._native.count(text))
        return ids, self._native.encode(text, ids.data_ptr())
