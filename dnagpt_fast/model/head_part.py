"""The last projection of the token head for some tokens only, or with equal rows computed once: the same probabilities.

Tokens that never were a target have equal rows after pre-training with the occurring vocabulary
(ops/combined_loss/occurring.py): 15,463 of 19,564 with k = 6. n equal rows add n exp(z) to the sum of the softmax; one
row with log(n) added to its logit adds the same.
"""

from typing import NamedTuple

import torch
from torch import nn

from dnagpt_fast.model.rounded_linear import RoundedLinear


class HeadPart(NamedTuple):
    """Rows of the projection: weight (n, D), bias (n,) or None."""

    weight: torch.Tensor
    bias: torch.Tensor | None


class DistinctRows(NamedTuple):
    """rows: the n distinct rows, with log_count added to the bias; place: int64 (V,), the index of each token among
    them; log_count: float32 (n,), log of the number of tokens that have this row."""

    rows: HeadPart | RoundedLinear
    place: torch.Tensor
    log_count: torch.Tensor


def head_part(projection: nn.Linear | RoundedLinear, tokens: torch.Tensor) -> HeadPart | RoundedLinear:
    """The rows of some tokens, int64 (n,)."""
    if isinstance(projection, RoundedLinear):
        return projection.rows(tokens)
    weight, bias = projection.weight.detach(), projection.bias
    at = tokens.to(weight.device)
    return HeadPart(weight[at], None if bias is None else bias.detach()[at])


def distinct_rows(projection: nn.Linear | RoundedLinear) -> DistinctRows | None:
    """None if fewer than half of the rows are equal to another one: then nothing would be gained."""
    weight, bias = projection.weight.detach(), projection.bias
    if 2 * len(weight[:, 0].unique()) > len(weight):  # quick: most tables have no equal rows
        return None
    whole = weight if bias is None else torch.cat([weight, bias.detach()[:, None]], 1)
    distinct, place, count = whole.unique(dim=0, return_inverse=True, return_counts=True)
    if 2 * len(distinct) > len(weight):
        return None
    log_count = count.float().log()
    added = log_count.to(weight.dtype)
    if bias is not None:
        distinct, added = distinct[:, :-1].contiguous(), distinct[:, -1] + added
    if isinstance(projection, RoundedLinear):
        tokens = torch.arange(len(weight), device=weight.device)
        first = tokens.new_full((len(distinct),), len(weight)).scatter_reduce(0, place, tokens, "amin")
        rows = projection.rows(first)
        rows.bias = added
        return DistinctRows(rows, place, log_count)
    return DistinctRows(HeadPart(distinct, added), place, log_count)
