"""Text -> token ids, what KmerTokenizer.encode runs."""

from collections.abc import Sequence

import torch

from dnagpt_fast.ops import dispatch, native
from dnagpt_fast.ops.text_encode_reference import text_encode as reference
from dnagpt_fast.vocab import Vocabulary


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

    def __call__(self, text: str) -> tuple[torch.Tensor, int]:
        """(ids int64 (T,), how many chunks are unknown). Raises TypeError for anything but a str."""
        if not isinstance(text, str):
            raise TypeError(f"text is {type(text).__name__}: wanted str")
        # the kernel counts bytes, chunks are of characters: other texts than ASCII are rare, and have unknown chunks
        if dispatch.choose("text_encode", "cpu") == "reference" or not text.isascii():
            found, unknown = reference(text, self.vocabulary, self.reserved, self.unknown_id)
            return torch.from_numpy(found), unknown
        ids = self._none.new_empty(self._native.count(text))
        return ids, self._native.encode(text, ids.data_ptr())
