"""One vector per sequence: hidden states of a chosen layer, pooled over the sequence's k-mers.

A sequence longer than the model's context is cut into windows without overlap and pooled over all of them. Memory does
not grow with the input: windows go through the model in batches of a bounded number of tokens, sorted by length, and
only sums are kept. A vector does not depend on the other sequences: see inference.py.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.inference import Inference, row_batches
from dnagpt_fast.model.token_windows import Source, TokenWindow, check_is_list, prefix_ids, window_chunks
from dnagpt_fast.model.tokenizer import KmerTokenizer

POOLINGS = ("mean", "last", "max")
BATCHES_AHEAD = 8
"""The windows of so many batches are sorted by length together."""


def embed(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    sequences: Iterable[Source],
    *,
    layer: int | Sequence[int] = -1,
    pooling: str = "mean",
    both_strands: bool = False,
    prefix: str = "<R>",
    max_tokens: int = 4096,
    progress: Callable[[int], object] = lambda bases: None,
) -> Iterator[np.ndarray]:
    """float32 (D,) for each sequence, in order. A sequence is text or a range of a genome (`Genome.range`).

    layer         0 the embeddings, i the output of block i, num_layers or -1 the last one after ln_f; a list of layers
                  gives (L, D) from one pass through the model, each row with the bits that its layer alone gives
    pooling       over the sequence's k-mers, without the prefix: "mean", "max", or "last" for the state at the last one
    both_strands  return the mean of the vectors of the sequence and of its reverse complement
    prefix        tokens before every window; the species token that the model was trained with, or ""
    max_tokens    tokens in a batch; limits the memory
    progress      called with the number of bases done since its last call; each strand counts
    Raises ValueError for settings or sequences that cannot be used, TypeError for one str.

    >>> from dnagpt_fast import load_model
    >>> model, tokenizer = load_model("dna_gpt6m_m")
    >>> [vector.shape for vector in embed(model, tokenizer, ["ACGTACGTACGT", "GGG"])]
    [(128,), (128,)]
    >>> next(embed(model, tokenizer, ["ACGTACGTACGT"], layer=[1, 2, -1])).shape
    (3, 128)
    """
    check_is_list(sequences)
    if pooling not in POOLINGS:
        raise ValueError(f"pooling = {pooling!r}: wanted one of {', '.join(POOLINGS)}")
    layers = [model.layer_index(one) for one in ([layer] if isinstance(layer, int) else layer)]
    if not layers:
        raise ValueError("layer is empty: wanted at least one layer")
    chunks = window_chunks(
        tokenizer,
        sequences,
        prefix_ids(tokenizer, prefix),
        model.max_len,
        0,
        both_strands,
        BATCHES_AHEAD * max_tokens,
    )
    vectors = _pooled(Inference(model), chunks, layers, pooling, max_tokens, progress)
    if isinstance(layer, int):
        vectors = (of_layers[0] for of_layers in vectors)
    if not both_strands:
        return (vector.astype(np.float32) for vector in vectors)
    return (
        ((forward + backward) / 2).astype(np.float32)
        for forward, backward in zip(vectors, vectors, strict=True)
    )


@dataclass
class _Pool:
    """The pooled windows of one sequence; they are added in order, so that the sums are always the same."""

    total: np.ndarray | float = 0.0
    count: int = 0
    largest: np.ndarray | float = -np.inf
    last: np.ndarray | float = 0.0

    def add(self, hidden: torch.Tensor, pooling: str) -> None:
        if pooling == "mean":
            self.total = self.total + hidden.sum(0).double().numpy()
            self.count += len(hidden)
        elif pooling == "max":
            self.largest = np.maximum(self.largest, hidden.amax(0).numpy())
        else:
            self.last = hidden[-1].numpy()

    def followed_by(self, other: "_Pool") -> "_Pool":
        largest = np.maximum(self.largest, other.largest)
        return _Pool(self.total + other.total, self.count + other.count, largest, other.last)

    def result(self, pooling: str) -> np.ndarray:
        value = {"mean": self.total / max(self.count, 1), "max": self.largest, "last": self.last}[pooling]
        return np.asarray(value, np.float64)


def _pooled(
    inference: Inference,
    chunks: Iterator[list[TokenWindow]],
    layers: list[int],
    pooling: str,
    max_tokens: int,
    progress: Callable[[int], object],
) -> Iterator[np.ndarray]:
    """(L, D) for each sequence."""
    pools = [_Pool() for _ in layers]
    for chunk in chunks:
        parts = [[_Pool() for _ in layers] for _ in chunk]
        for batch in row_batches([len(window.ids) for window in chunk], max_tokens):
            states = inference.hidden_layers([chunk[i].ids for i in batch], layers)
            for number, of_layer in enumerate(states):
                for i, hidden in zip(batch, of_layer, strict=True):
                    parts[i][number].add(hidden[chunk[i].n_prefix :].float().cpu(), pooling)
            progress(sum(chunk[i].new_bp for i in batch))
        for window, part in zip(chunk, parts, strict=True):
            pools = [pool.followed_by(more) for pool, more in zip(pools, part, strict=True)]
            if window.is_last:
                yield np.stack([pool.result(pooling) for pool in pools])
                pools = [_Pool() for _ in layers]
