"""The last projection of the token head for some tokens only, or with equal rows computed once: the same probabilities.

Tokens that never were a target have equal rows after pre-training with the occurring vocabulary
(ops/combined_loss/occurring.py): 15,463 of 19,564 with k = 6. n equal rows add n exp(z) to the sum of the softmax; one
row with log(n) added to its logit adds the same.
"""

from typing import NamedTuple

import torch
from torch import nn

from dnagpt_fast.model.rounded_linear import RoundedLinear

HASHED_COLUMNS = 8
ODD = 0x1E3779B97F4A7C15
"""Hashes are polynomials in this number, modulo 2^64."""
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


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
    first, place = equal_rows(weight if bias is None else torch.cat([weight, bias.detach()[:, None]], 1))
    if 2 * len(first) > len(weight):
        return None
    log_count = place.bincount().float().log()
    part = head_part(projection, first)
    added = log_count.to(weight.dtype)
    added = added if part.bias is None else part.bias + added
    if isinstance(part, RoundedLinear):
        part.bias = added
    else:
        part = part._replace(bias=added)
    return DistinctRows(part, place, log_count)


def equal_rows(table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 (n,): where each distinct row of a table (V, ...) occurs first, ascending; int64 (V,): the index of each
    row among these.

    `torch.unique(dim=0)` compares equal rows to their ends in each step of a sort: 0.13 s for the packaged model's
    head. Here rows are grouped by a hash of a few numbers, and each is then compared once with the first of its group.
    """
    flat = table.reshape(len(table), -1)
    key = torch.zeros(len(table), dtype=torch.int64, device=table.device)
    for column in flat[:, :HASHED_COLUMNS].contiguous().view(BITS[flat.element_size()]).unbind(1):
        key = key * ODD + column
    _, place = key.unique(return_inverse=True)
    first = _first_places(place)
    if not torch.equal(flat[first[place]], flat):
        _, place = flat.unique(dim=0, return_inverse=True)
        first = _first_places(place)
    first, order = first.sort()
    return first, order.argsort()[place]


def _first_places(groups: torch.Tensor) -> torch.Tensor:
    """The first index of each of the groups 0..n-1."""
    at = torch.arange(len(groups), device=groups.device)
    first = at.new_full((int(groups.max()) + 1 if len(groups) else 0,), len(groups))
    return first.scatter_reduce(0, groups, at, "amin")
