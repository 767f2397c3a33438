"""`stop_strings` of transformers' `generate` for a tokenizer without letters: transformers' own criterion puts a prefix
of lower-case letters before each token to see its text, and such a prefix does not survive here."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria


class StopAtText(StoppingCriteria):
    """Ends a sequence whose last token completes one of the strings; transformers' rule: the string may end within it.

    stop_strings  one string or several, of bases and reserved tokens
    tokenizer     a DNAGPTTokenizer

    Raises ValueError for an empty string.
    """

    def __init__(self, stop_strings: str | Sequence[str], tokenizer: Any) -> None:
        self.stop_strings = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
        if not all(self.stop_strings):
            raise ValueError(f"stop_strings = {self.stop_strings}: wanted strings of one letter or more")
        self.tokenizer = tokenizer
        # a token has a letter or more, so this many reach back far enough
        self.tail = max(map(len, self.stop_strings)) + 1

    def __call__(self, input_ids: torch.Tensor, scores: Any = None, **kwargs: Any) -> torch.Tensor:
        """bool (B,): which sequences of ids (B, T) end here."""
        done = [self._ends(ids) for ids in input_ids[:, -self.tail :].tolist()]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)

    def _ends(self, ids: list[int]) -> bool:
        texts = self.tokenizer.convert_ids_to_tokens(ids)
        text = "".join(texts)
        before = len(text) - len(texts[-1])
        return any(text.find(wanted, max(before - len(wanted) + 1, 0)) >= 0 for wanted in self.stop_strings)
