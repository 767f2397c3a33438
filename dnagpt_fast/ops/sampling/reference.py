"""Sampling in plain torch: the definition that the kernels are compared with.

z = logits / temperature, -inf where a token is not allowed or is filtered out      p = softmax(z)
most likely   the token with the largest p
uniform u     the first token at which the running sum of p exceeds u times the sum of p (inverse transform)
race q        the token with the largest p / q, q exponential: torch.multinomial's draw (Gumbel 1954)
"""

import torch

from dnagpt_fast.ops.sampling.settings import Choice


def next_tokens_reference(
    logits: torch.Tensor, choice: Choice, numbers: torch.Tensor | None = None
) -> torch.Tensor:
    """(B, V) -> int64 (B,). numbers: float64 (B,) for "uniform", (B, V) for "race"."""
    return drawn(probabilities(logits, choice), choice.how, numbers)


def probabilities(logits: torch.Tensor, choice: Choice) -> torch.Tensor:
    """(B, V) -> (B, V)"""
    logits = logits / choice.temperature
    if choice.allowed is not None:
        logits = logits.masked_fill(~choice.allowed, float("-inf"))
    return filter_logits(logits, choice.top_k, choice.top_p).softmax(-1)


def drawn(p: torch.Tensor, how: str, numbers: torch.Tensor | None = None) -> torch.Tensor:
    """(B, V) -> int64 (B,)"""
    if how == "most likely":
        return p.topk(1).indices[:, 0]
    assert numbers is not None
    if how == "race":
        return (p / numbers).argmax(-1)
    sums = p.double().cumsum(-1)
    found = torch.searchsorted(sums, numbers[:, None] * sums[:, -1:], right=True)[:, 0]
    # u * sum may be rounded up to the sum itself: then the last token with a probability is drawn
    last = p.shape[1] - 1 - (p > 0).flip(-1).int().argmax(-1)
    return torch.minimum(found, last)


def filter_logits(logits: torch.Tensor, top_k: int = 0, top_p: float = 0.0) -> torch.Tensor:
    """Logits (B, V) with -inf at the tokens that may not be drawn; a new tensor.

    top_k  > 0: keep the k largest, and those equal to the k-th
    top_p  > 0: of the tokens left, keep the most likely ones, up to and including the one at which the sum of their
           probabilities exceeds top_p
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


def advance_lanes_reference(
    tokens: torch.Tensor,
    stop_ids: torch.Tensor,
    left: torch.Tensor,
    newest: torch.Tensor,
    lengths: torch.Tensor,
    made: torch.Tensor,
    turn: torch.Tensor,
) -> None:
    """As ops.sampling.op.advance_lanes."""
    going = left > 0
    kept = going & ~(tokens[:, None] == stop_ids).any(-1) & (tokens >= 0)
    row = torch.where(kept, tokens, torch.where(going & (tokens < 0), -2, -1))
    made.index_copy_(0, turn, row[None])
    left.copy_(torch.where(kept, left - 1, 0))
    newest.copy_(torch.where(left > 0, tokens, 0))
    lengths.copy_(torch.where(left > 0, lengths, 0))
    turn.add_(1)
