"""Text -> token ids with the rules of the official KmerTokenizer (arXiv 2307.05628); KmerTokenizer.encode calls it.

Text is split at `<` and `>`. A piece that is a reserved name becomes that token, an empty piece is dropped, any other
piece is cut from the left into chunks of k characters. A chunk that the vocabulary lacks becomes the unknown token.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.compiled import native_module
from dnagpt_fast.ops.output import LARGE_BYTES, output
from dnagpt_fast.vocab import BASES, N_RESERVED, Vocabulary

CPU = torch.device("cpu")


def text_encode_reference(
    text: str, vocabulary: Vocabulary, reserved: list[str], unknown_id: int
) -> tuple[np.ndarray, int]:
    """(ids int64 (T,), number of unknown chunks). reserved: names without brackets in id order; k-mers follow."""
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

    vocabulary  k, and whether shorter k-mers have ids
    reserved    names without brackets in id order; the k-mers' ids follow them
    unknown_id  for a chunk that the vocabulary lacks
    """

    def __init__(self, vocabulary: Vocabulary, reserved: Sequence[str], unknown_id: int) -> None:
        self.vocabulary = vocabulary
        self.reserved = list(reserved)
        self.unknown_id = unknown_id
        self._native = native_module.TextEncoder(vocabulary.k, vocabulary.dynamic, self.reserved, unknown_id)
        self._none = torch.empty(0, dtype=torch.int64)

    def __reduce__(self) -> tuple:
        """Copied and pickled as its arguments: the native object holds addresses."""
        return TextEncoder, (self.vocabulary, self.reserved, self.unknown_id)

    def count(self, text: str) -> int:
        """The number of tokens of a text: T. Raises TypeError for anything but a str."""
        if not isinstance(text, str):
            raise TypeError(f"text is {type(text).__name__}: wanted str")
        return self._native.count(text) if text.isascii() else len(self(text)[0])

    def __call__(self, text: str, out: torch.Tensor | None = None) -> tuple[torch.Tensor, int]:
        """(ids int64 (T,), number of unknown chunks).

        out  contiguous int64 (T,) on the CPU, to write into and return, with T = count(text); None: a new tensor

        Raises TypeError for anything but a str, ValueError for an `out` that does not fit.
        """
        if not isinstance(text, str):
            raise TypeError(f"text is {type(text).__name__}: wanted str")
        # the kernel counts bytes but chunks are characters; text outside ASCII is rare and has unknown chunks anyway
        if dispatch.choose("text_encode", "cpu") == "reference" or not text.isascii():
            found, unknown = text_encode_reference(text, self.vocabulary, self.reserved, self.unknown_id)
            ids = torch.from_numpy(found)
            return ids if out is None else output(out, ids.shape, torch.int64, CPU).copy_(ids), unknown
        count = self._native.count(text)
        # new_empty of a kept tensor is the fastest allocation, which matters for a short text
        if out is None and count * 8 < LARGE_BYTES:
            ids = self._none.new_empty(count)
        else:
            ids = output(out, (count,), torch.int64, CPU)
        return ids, self._native.encode(text, ids.data_ptr())
