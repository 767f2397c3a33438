"""The tokens that can be a target, and the head's projection with one row for all others.

Rows of the head that no target ever asks for get the same gradient where they are equal, so rows that start equal stay
equal under AdamW. n equal rows add n exp(z) to the softmax's sum: one row with log(n) added to its logit says the same.
Its gradient, divided by n, is that of each of them, so the full table's norm, clipping and steps are unchanged.
"""

import math
from collections.abc import Iterable
from itertools import product

import torch

from dnagpt_fast.batch import IGNORE_INDEX
from dnagpt_fast.vocab import Vocabulary


class OccurringTokens:
    """tokens int64 (C,): the tokens that can be a target, ascending. rest int64 (n,): all others.
    place int64 (V,): a token's place in `tokens`, IGNORE_INDEX for the others."""

    def __init__(
        self, vocabulary: Vocabulary, others: Iterable[int], device: torch.device | str = "cpu"
    ) -> None:
        """The k-mers of full length without N, and `others`: the template's prompts and answers."""
        kmers = (vocabulary.kmer_id("".join(bases)) for bases in product("AGCT", repeat=vocabulary.k))
        self.tokens = torch.tensor(sorted({*kmers, *others}), device=device)
        self.place = torch.full((len(vocabulary),), IGNORE_INDEX, dtype=torch.int64, device=device)
        self.place[self.tokens] = torch.arange(len(self.tokens), device=device)
        self.rest = torch.nonzero(self.place == IGNORE_INDEX).squeeze(1)
        self.log_rest = math.log(len(self.rest))

    @torch.no_grad()
    def equalize(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Gives all the other tokens the mean of their rows, in place; weight (V, D), bias (V,), on any one device."""
        rest = self.rest.to(weight.device)
        for table in (weight, bias):
            if table is not None:
                table[rest] = table[rest].mean(0)

    def equal_rows(self, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
        """Whether the rows of all the other tokens are equal, to the rounding of many steps."""
        rest = self.rest.to(weight.device)
        return all(
            torch.allclose(table[rest], table[rest[:1]], rtol=1e-5, atol=1e-7)
            for table in (weight, bias)
            if table is not None
        )

    def head(self, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(V, D), (V,) -> (C + 1, D), (C + 1,): the occurring rows, and the one row that stands for all others."""
        small = _Rows.apply(weight, self.tokens, self.rest)
        if bias is None:
            bias_small = torch.zeros(len(self.tokens) + 1, dtype=weight.dtype, device=weight.device)
        else:
            bias_small = _Rows.apply(bias, self.tokens, self.rest)
        shift = torch.zeros_like(bias_small)
        shift[-1] = self.log_rest
        return small, bias_small + shift

    def targets(self, targets: torch.Tensor) -> torch.Tensor:
        """Places of target tokens; IGNORE_INDEX for ignored ones and for tokens that do not occur."""
        return torch.where(targets == IGNORE_INDEX, IGNORE_INDEX, self.place[targets.clamp(min=0)])


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table, tokens, rest):
        ctx.save_for_backward(tokens, rest)
        ctx.shape = table.shape
        return torch.cat((table.index_select(0, tokens), table[rest[:1]]))

    @staticmethod
    def backward(ctx, grad):
        tokens, rest = ctx.saved_tensors
        whole = (grad[-1:] / len(rest)).expand(ctx.shape).contiguous()
        whole[tokens] = grad[:-1]
        return whole, None, None
