"""`stop_strings` of transformers' `generate`, for our tokenizer.

transformers' own criterion puts a prefix of lower-case letters before each token to find its text; this
tokenizer turns such letters into the unknown token.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria


class StopAtText(StoppingCriteria):
    """Ends a sequence whose last token completes one of the strings, which may end inside the token, as in
    transformers.

    stop_strings  one string or several, of bases and reserved tokens
    tokenizer     a DNAGPTTokenizer

    Raises ValueError for an empty string.
    """

    def __init__(self, stop_strings: str | Sequence[str], tokenizer: Any) -> None:
        self.stop_strings = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
        if not all(self.stop_strings):
            raise ValueError(f"stop_strings = {self.stop_strings}: wanted strings of one letter or more")
        self.tokenizer = tokenizer
        # a token has at least one letter, so this many tokens are enough
        self.tail = max(map(len, self.stop_strings)) + 1

    def __call__(self, input_ids: torch.Tensor, scores: Any = None, **kwargs: Any) -> torch.Tensor:
        """bool (B,): whether each sequence of ids (B, T) ends here."""
        done = [self._ends(ids) for ids in input_ids[:, -self.tail :].tolist()]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)

    def _ends(self, ids: list[int]) -> bool:
        texts = self.tokenizer.convert_ids_to_tokens(ids)
        text = "".join(texts)
        before = len(text) - len(texts[-1])
        return any(text.find(wanted, max(before - len(wanted) + 1, 0)) >= 0 for wanted in self.stop_strings)
