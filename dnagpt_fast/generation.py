"""Sampling by the official rules: temperature, then top-k, then top-p, then a draw or the most likely token.

Once a sequence grows past max_len tokens its context is the last max_len of them, positions counted from 0 again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from dnagpt_fast.vocab import PAD_ID

if TYPE_CHECKING:
    from dnagpt_fast.model import DNAGPT


def filter_logits(logits: torch.Tensor, top_k: int = 0, top_p: float = 0.0) -> torch.Tensor:
    """Logits (B, V) with -inf at the tokens that may not be drawn; a new tensor.

    top_k  > 0: keep the k largest, and what ties with the k-th
    top_p  > 0: of what is left, keep the most likely tokens, up to and with the one at which their probabilities
           together pass top_p
    """
    if top_k > 0:
        kth = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if top_p > 0.0:
        ranked, order = logits.sort(descending=True)
        cumulative = ranked.softmax(-1).cumsum(-1)
        dropped = torch.zeros_like(order, dtype=torch.bool)
        dropped[..., 1:] = cumulative[..., :-1] > top_p
        logits = logits.masked_fill(dropped.scatter(-1, order, dropped), float("-inf"))
    return logits


@torch.no_grad()
def generate(
    model: "DNAGPT",
    idx: torch.Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    do_sample: bool = False,
    top_k: int = 0,
    top_p: float = 0.0,
    stop_ids: Sequence[int] | None = None,
) -> torch.Tensor:
    """idx int64 (B, T) continued by up to max_new_tokens tokens; (B, T + made).

    A row ends before a token of stop_ids, which is not appended; shorter rows are filled with the pad token.
    """
    stops = torch.tensor(sorted(set(stop_ids or ())), dtype=torch.long, device=idx.device)
    ended = torch.zeros(idx.shape[0], dtype=torch.bool, device=idx.device)
    for _ in range(max_new_tokens):
        hidden = model.hidden_states(idx[:, -model.max_len :])[:, -1]
        probabilities = filter_logits(model.mlm_head(hidden) / temperature, top_k, top_p).softmax(-1)
        chosen = probabilities.multinomial(1) if do_sample else probabilities.topk(1).indices
        ended |= torch.isin(chosen[:, 0], stops)
        if bool(ended.all()):
            break
        idx = torch.cat((idx, chosen.masked_fill(ended[:, None], PAD_ID)), dim=1)
    return idx
