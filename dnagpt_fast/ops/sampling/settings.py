"""The arguments of every implementation of next_tokens: how a token is chosen from its logits."""

from typing import NamedTuple

import torch

HOWS = ("most likely", "uniform", "race")


class Choice(NamedTuple):
    """temperature > 0; top_k, top_p as in `filter_logits`, 0: off; how: one of HOWS; allowed: bool (V,), None: all."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0
    how: str = "most likely"
    allowed: torch.Tensor | None = None
