"""Attention weights of one sequence: how much each token looks at each token before it, by block and head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.sequences import Source
from dnagpt_fast.model.token_windows import prefix_ids, strands
from dnagpt_fast.model.tokenizer import KmerTokenizer


@dataclass(frozen=True)
class AttentionMaps:
    """weights   float32 (layers, heads, T, T): weights[l, h, i, j] is the weight of token j for token i: 0 for j > i;
                 each row adds up to 1
    layers       the number of the block of each map, 1..num_layers
    tokens       the T tokens as text: the prefix, then the k-mers
    start_bp     int64 (T,): the first base of each token, counted from the start of the sequence; -1 for the prefix;
                 end_bp likewise, after its last base
    """

    weights: np.ndarray
    layers: tuple[int, ...]
    tokens: tuple[str, ...]
    start_bp: np.ndarray
    end_bp: np.ndarray

    @property
    def n_prefix(self) -> int:
        return int((self.start_bp < 0).sum())


def attention_weights(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    sequence: Source,
    *,
    layer: int | Sequence[int] | None = None,
    prefix: str = "<R>",
) -> AttentionMaps:
    """The attention weights of a sequence: text, or a range of a genome (`Genome.range`).

    layer   i for block i, 1..num_layers, whose output `embed` calls layer i; -1 the last one; a list of them, which is
            put in order; None for all
    prefix  tokens before the sequence; the species token that the model was trained with, or ""
    The result has 4 bytes x layers x heads x T x T; T is at most max_len. Raises ValueError for a layer out of range,
    and for a sequence that cannot be used or does not fit into the model at once.

    >>> from dnagpt_fast import load_model
    >>> model, tokenizer = load_model("dna_gpt6m_m")
    >>> found = attention_weights(model, tokenizer, "ACGTACGTACGT", layer=-1)
    >>> found.weights.shape, found.tokens, found.start_bp.tolist()
    ((1, 4, 3, 3), ('<R>', 'ACGTAC', 'GTACGT'), [-1, 0, 6])
    """
    numbers = (
        range(1, model.num_layers + 1) if layer is None else [layer] if isinstance(layer, int) else layer
    )
    blocks = tuple(sorted({_block(model, number) for number in numbers}))
    if not blocks:
        raise ValueError("layer is empty: wanted at least one layer")
    first = prefix_ids(tokenizer, prefix)
    (kmers,) = strands(tokenizer, sequence)
    room = model.max_len - len(first)
    if len(kmers) > room:
        raise ValueError(
            f"{kmers.length_bp:,} bp are {len(kmers):,} k-mers: attention maps need the whole sequence in the model at "
            f"once, and it reads {room:,} ({tokenizer.k * room:,} bp) after the prefix: take a shorter one"
        )
    ids = [*first, *kmers.ids(0, len(kmers)).tolist()]
    start = np.array([-1] * len(first) + [tokenizer.k * i for i in range(len(kmers))])
    end = np.minimum(start + tokenizer.k, kmers.length_bp)
    end[: len(first)] = -1
    weights = Inference(model).attention_weights(ids, blocks).numpy()
    return AttentionMaps(weights, blocks, tuple(tokenizer.idx_to_token[i] for i in ids), start, end)


def _block(model: DNAGPT, number: int) -> int:
    """The number of a block as 1..num_layers."""
    last = model.num_layers
    if not (1 <= number <= last or -last <= number <= -1):
        raise ValueError(f"layer = {number}: wanted 1..{last}, or -1 for the last (layer 0 has no attention)")
    return number % (last + 1)
