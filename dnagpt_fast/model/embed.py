"""One vector per sequence: hidden states of a chosen layer, pooled over the sequence's k-mers.

A sequence longer than the model's context is cut into windows without overlap and pooled over all of them. Memory does
not grow with the input: windows go through the model in batches of a bounded number of tokens, sorted by length, and
only sums are kept. A vector does not depend on the other sequences: see inference.py.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.inference import Inference, row_batches
from dnagpt_fast.model.sequences import Source, check_is_list
from dnagpt_fast.model.token_windows import TokenWindow, prefix_ids, window_chunks
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
    """float32 (D,) for each sequence, in order. A sequence is text, a range of a genome (`genome["chr1:10-20"]`),
    bytes, an array of letters, or an object of Biopython, pyfaidx or pysam; `sequences` may be a column of a table.

    layer         0 the embeddings, i the output of block i, num_layers or -1 the last one after ln_f; a list of layers
                  gives (L, D) from one pass through the model, each row with the bits that its layer alone gives
    pooling       over the sequence's k-mers, without the prefix: "mean", "max", or "last" for the state at the last one
    both_strands  return the mean of the vectors of the sequence and of its reverse complement
    prefix        tokens before every window; the species token that the model was trained with, or ""
    max_tokens    tokens in a batch; limits the memory
    progress      called with the number of bases done since its last call; each strand counts
    Raises ValueError for settings or sequences that cannot be used, TypeError for one sequence where a list is wanted;
    the message names the row.

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


def _pooled(
    inference: Inference,
    chunks: Iterator[list[TokenWindow]],
    layers: list[int],
    pooling: str,
    max_tokens: int,
    progress: Callable[[int], object],
) -> Iterator[np.ndarray]:
    """float64 (L, D) for each sequence. Its windows are added in order, so that the sum is always the same."""
    so_far: np.ndarray | None = None
    count, rows = 0, inference.pass_rows(max_tokens)
    for chunk in chunks:
        parts = np.empty((len(chunk), len(layers), inference.model.embedding_dim))
        for batch in row_batches([len(window.ids) for window in chunk], rows):
            some = [chunk[i] for i in batch]
            parts[batch] = _pooled_windows(inference, some, layers, pooling)
            progress(sum(window.new_bp for window in some))
        for window, part in zip(chunk, parts, strict=True):
            count += len(window.ids) - window.n_prefix
            so_far = part if so_far is None else _together(so_far, part, pooling)
            if window.is_last:
                yield so_far / count if pooling == "mean" else so_far
                so_far, count = None, 0


def _together(one: np.ndarray, other: np.ndarray, pooling: str) -> np.ndarray:
    """Two pooled parts of a sequence as one."""
    if pooling == "mean":
        return one + other
    return np.maximum(one, other) if pooling == "max" else other


def _pooled_windows(
    inference: Inference, windows: Sequence[TokenWindow], layers: list[int], pooling: str
) -> np.ndarray:
    """float64 (W, L, D): the sum, the largest or the last of the states at each window's k-mers; windows of one length
    together. All windows have the same prefix."""
    rows = inference.hidden_rows([window.ids for window in windows], layers)
    pooled = np.empty((len(windows), len(layers), inference.model.embedding_dim))
    for members in rows.members:
        first, stop = int(rows.bounds[members[0], 0]), int(rows.bounds[members[-1], 1])
        for number, states in enumerate(rows.states):
            of_group = states[first:stop].float().cpu().view(len(members), -1, states.shape[1])
            of_kmers = of_group[:, windows[0].n_prefix :]
            if pooling == "mean":
                found = of_kmers.sum(1)
            elif pooling == "max":
                found = of_kmers.amax(1)
            else:
                found = of_kmers[:, -1]
            pooled[members, number] = found.numpy()
    return pooled
