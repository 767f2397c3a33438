"""The exact loss at the cost of the tokens that occur: one row of the projection represents all tokens that never do.

Rows of the projection that are equal and never a target get the same gradient, so rows that start equal stay equal
under AdamW. n equal rows add n exp(z) to the sum of the softmax; one row with log(n) added to its logit adds the same.
Its gradient divided by n is the gradient of each row. So the gradient of the whole table, its norm, clipping and
AdamW's steps are those of the full vocabulary, and a saved table is an ordinary one.
"""

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

import torch

from dnagpt_fast.batch import IGNORE_INDEX
from dnagpt_fast.ops.registration import register_op
from dnagpt_fast.vocab import Vocabulary


class OccurringTokens(NamedTuple):
    """Which tokens of a vocabulary can be a target; made by `occurring_tokens`.

    k       length of the k-mers
    tokens  int64 (C,): the plain k-mers in the order of their bases (AA, AG, ..., TT), then the others, ascending
    rest    int64 (n,), n >= 1: all tokens that never occur
    place   int64 (V,): the index of each token in `tokens`, -1 for the tokens of `rest`
    """

    k: int
    tokens: torch.Tensor
    rest: torch.Tensor
    place: torch.Tensor

    def to(self, device: torch.device | str) -> "OccurringTokens":
        return OccurringTokens(self.k, *(t.to(device) for t in (self.tokens, self.rest, self.place)))


def plain_kmers(vocabulary: Vocabulary) -> torch.Tensor:
    """int64 (4^k,): ids of the k-mers of full length without N, in the order of their bases."""
    return torch.tensor(
        [vocabulary.kmer_id("".join(bases)) for bases in product("AGCT", repeat=vocabulary.k)]
    )


def occurring_tokens(vocabulary: Vocabulary, others: Iterable[int]) -> OccurringTokens:
    """The plain k-mers of full length and `others`, the ids of prompts and answers that can be a target.

    Raises ValueError for an id outside the vocabulary, and if every token occurs.

    >>> tokens = occurring_tokens(Vocabulary(k=2), others=[0, 1])
    >>> len(tokens.tokens), len(tokens.rest)
    (18, 46)
    """
    kmers = plain_kmers(vocabulary)
    more = sorted(set(others) - set(kmers.tolist()))
    for token in more:
        if not 0 <= token < len(vocabulary):
            raise ValueError(f"occurring_tokens: id {token}: the vocabulary has ids 0..{len(vocabulary) - 1}")
    tokens = torch.cat([kmers, torch.tensor(more, dtype=torch.int64)])
    place = torch.full((len(vocabulary),), -1, dtype=torch.int64)
    place[tokens] = torch.arange(len(tokens))
    rest = (place < 0).nonzero()[:, 0]
    if not len(rest):
        raise ValueError(f"occurring_tokens: all {len(vocabulary)} tokens occur: wanted some that do not")
    return OccurringTokens(vocabulary.k, tokens, rest, place)


def unequal_rest(weight: torch.Tensor, bias: torch.Tensor | None, occurring: OccurringTokens) -> float:
    """Largest difference between the rows of `rest`, relative to the table's largest value; 0 if they are equal.

    Synchronises with the device.
    """
    worst = 0.0
    for table in (weight.detach(), None if bias is None else bias.detach()):
        if table is not None:
            rows = table[occurring.rest]
            difference = (rows - rows[:1]).abs().max() / table.abs().max().clamp(
                min=torch.finfo(table.dtype).tiny
            )
            worst = max(worst, float(difference))
    return worst


@torch.no_grad()
def equalize_rest(weight: torch.Tensor, bias: torch.Tensor | None, occurring: OccurringTokens) -> None:
    """Sets all rows of `rest` to their mean, in place."""
    weight[occurring.rest] = weight[occurring.rest].mean(0)
    if bias is not None:
        bias[occurring.rest] = bias[occurring.rest].mean()


class _CompactRows(torch.autograd.Function):
    """Table (V, ...) -> (C + 1, ...): the rows of `tokens`, and the first row of `rest`, which represents them all."""

    @staticmethod
    def forward(ctx, table, tokens, rest):
        ctx.save_for_backward(tokens, rest)
        ctx.shape = table.shape
        return torch.cat([table.index_select(0, tokens), table.index_select(0, rest[:1])])

    @staticmethod
    def backward(ctx, grad):
        tokens, rest = ctx.saved_tensors
        whole = (grad[-1:] / len(rest)).expand(ctx.shape)
        return whole.index_copy(0, tokens, grad[:-1]), None, None


def compact_rows(table: torch.Tensor, occurring: OccurringTokens) -> torch.Tensor:
    """(V, ...) -> (C + 1, ...), differentiable: the gradient of the last row is divided among the rows of `rest`."""
    compact: torch.Tensor = _CompactRows.apply(table, occurring.tokens, occurring.rest)
    return compact


def _occurring_targets(
    targets: torch.Tensor, place: torch.Tensor, is_next: torch.Tensor, is_order: torch.Tensor
) -> torch.Tensor:
    """The index of each target, IGNORE_INDEX for ignored rows and for next tokens that do not occur.

    Any other target without an index raises IndexError on the CPU; on other devices, where the check would need a sync,
    it gets index V, and the loss is NaN.
    """
    vocab = len(place)
    counted = is_next | is_order
    inside = counted & (targets >= 0) & (targets < vocab)
    places = place[torch.where(inside, targets, 0)]
    left_out = inside & (places < 0) & ~is_order
    bad = counted & ~left_out & (~inside | (places < 0))
    if targets.device.type == "cpu" and bad.any():
        row = int(bad.nonzero()[0])
        raise IndexError(
            f"combined_loss: row {row} has target {int(targets[row])}: wanted 0..{vocab - 1}, "
            "and in an order row a token that occurs"
        )
    return torch.where(counted & ~left_out, torch.where(bad, vocab, places), IGNORE_INDEX)


register_op(
    "combined_loss_occurring_targets(Tensor targets, Tensor place, Tensor is_next, Tensor is_order) -> Tensor",
    _occurring_targets,
    fake=lambda targets, place, is_next, is_order: torch.empty_like(targets),
)
