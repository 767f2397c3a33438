"""Probabilities of single bases from a model of k-mers.

P(base | all bases before it) at position i: cut the sequence so that a k-mer begins at i, and sum the distribution of
the next k-mer over all k-mers that begin with this base: P(b) = sum_{w: w_0 = b} P(w) / sum_w P(w), where w runs over
the k-mers of A, C, G and T. k passes, one for each phase, give all positions of a sequence. The idea is from
GENERator's variant scores (bioRxiv 2026.01.27.702015).
"""

from collections.abc import Iterable, Sequence

import torch

from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.kmer_table import BASE_ORDER, KmerTable
from dnagpt_fast.model.score import ROWS_OF_LOGITS
from dnagpt_fast.model.sequences import Source, text_of
from dnagpt_fast.model.token_windows import TextKmers, clean_bases, prefix_ids, token_windows
from dnagpt_fast.model.tokenizer import KmerTokenizer


class NextBase:
    """P(A), P(C), P(G), P(T) of the base after a token, from its hidden state; computes the logits of the 4^k k-mers of
    A, C, G and T only."""

    def __init__(self, inference: Inference, tokenizer: KmerTokenizer) -> None:
        self.inference = inference
        self._table = KmerTable(tokenizer)
        self._part = inference.head_part(self._table.ids)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """(R, D) after ln_f -> float32 (R, 4) on the CPU."""
        return torch.cat([self._some(rows).cpu() for rows in hidden.split(ROWS_OF_LOGITS)])

    def _some(self, rows: torch.Tensor) -> torch.Tensor:
        if self._part is None:
            return self._table.first_base(self.inference.logits(rows))
        p = self.inference.logits(rows, self._part).float().softmax(-1)
        return p.view(len(rows), 4, p.shape[1] // 4).sum(-1)


def place_marginals(logits: torch.Tensor, table: KmerTable) -> torch.Tensor:
    """Logits (R, V) of the next token -> (R, k, 4): P(the next k-mer has base b at place j), for each place."""
    joint = table.probabilities(logits)
    places = range(1, table.k + 1)
    return torch.stack(
        [joint.sum([d for d in places if d != j]) if table.k > 1 else joint for j in places], 1
    )


def context_prefix(tokenizer: KmerTokenizer, prefix: str) -> list[int]:
    """Token ids of the prefix. Raises ValueError if it has none: the first base would have no context."""
    first = prefix_ids(tokenizer, prefix)
    if not first:
        raise ValueError(
            "the prefix has no token: the first bases would have no context; give one, such as <R>"
        )
    return first


@torch.no_grad()
def base_probabilities(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    sequence: Source,
    *,
    prefix: str = "<R>",
    overlap: int | None = None,
) -> torch.Tensor:
    """float32 (length_bp, 4), columns A C G T: P(base at i | prefix and the bases before i, back to a k-mer boundary).

    The context of position i is the bases before i in whole k-mers, as many as the model's context holds; windows
    overlap by `overlap` k-mers (default half of max_len). The prefix must have a token: the first base has no other
    context.
    Raises ValueError for settings or a sequence that cannot be used.
    """
    bases = clean_bases(text_of(sequence))
    first = context_prefix(tokenizer, prefix)
    return _probabilities(model, tokenizer, bases, first, overlap, range(min(tokenizer.k, len(bases))))


def _probabilities(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    bases: str,
    prefix: list[int],
    overlap: int | None,
    phases: Iterable[int],
) -> torch.Tensor:
    """As base_probabilities, but only the rows phase, phase + k ... of the given phases; NaN in the other rows."""
    overlap = model.max_len // 2 if overlap is None else overlap
    inference, k = Inference(model), tokenizer.k
    next_base = NextBase(inference, tokenizer)
    out = torch.full((len(bases), 4), torch.nan)
    for phase in phases:
        # The last token of the prefix predicts the k-mer at base `phase`, each k-mer predicts the next one.
        starts = len(range(phase, len(bases), k))
        context = bases[phase : phase + k * (starts - 1)]
        rows: list[torch.Tensor] = []
        for window in token_windows(TextKmers(tokenizer, context), prefix, model.max_len, overlap):
            before = window.n_prefix + window.n_context - (0 if rows else 1)
            rows.append(inference.hidden_states([window.ids])[0][before:])
        out[phase::k] = next_base(torch.cat(rows))
    return out


@torch.no_grad()
def substitution_scores(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    sequence: Source,
    substitutions: Iterable[tuple[int, str]],
    *,
    prefix: str = "<R>",
    overlap: int | None = None,
) -> list[float]:
    """log P(alternative) - log P(base of the sequence) for each (position, alternative base); 0-based positions.

    Negative: the model finds the alternative less likely here. Only the bases before the position are used.
    Raises ValueError for a position outside the sequence, an alternative that is not a base, or an N at the position.
    """
    wanted: Sequence[tuple[int, str]] = list(substitutions)
    bases = clean_bases(text_of(sequence))
    for position, alternative in wanted:
        if not 0 <= position < len(bases):
            raise ValueError(f"position {position}: the sequence has 0..{len(bases) - 1}")
        if alternative not in tuple(BASE_ORDER):
            raise ValueError(
                f"alternative {alternative!r} at {position}: wanted one of {' '.join(BASE_ORDER)}"
            )
        if bases[position] == "N":
            raise ValueError(f"the sequence has N at {position}: nothing to compare {alternative} with")
    phases = sorted({position % tokenizer.k for position, _ in wanted})
    first = context_prefix(tokenizer, prefix)
    logs = _probabilities(model, tokenizer, bases, first, overlap, phases).log()
    return [
        float(
            logs[position, BASE_ORDER.index(alternative)] - logs[position, BASE_ORDER.index(bases[position])]
        )
        for position, alternative in wanted
    ]
