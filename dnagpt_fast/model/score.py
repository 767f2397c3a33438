"""Log-likelihood of sequences: log P(k-mers | prefix) = sum over the k-mers of log P(k-mer | prefix and k-mers before).

A sequence longer than the model's context is scored in windows: each except the first begins with the prefix and the
last `overlap` k-mers of the previous window as context, and only its new k-mers are counted. A score does not depend on
the other sequences: see inference.py.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F

from dnagpt_fast.batch import IGNORE_INDEX
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.inference import PLAIN, Inference, TokenIds, row_batches
from dnagpt_fast.model.sequences import Source, check_is_list
from dnagpt_fast.model.token_windows import TokenWindow, prefix_ids, window_chunks
from dnagpt_fast.model.tokenizer import KmerTokenizer, indices_of
from dnagpt_fast.ops.combined_loss.op import combined_loss
from dnagpt_fast.ops.traits import loss_is_batch_independent

ROWS_OF_LOGITS = 1024
"""Rows whose logits over the vocabulary are in memory at once, if logits are computed."""
BATCHES_AHEAD = 8
"""The windows of so many batches are sorted by length together."""


@dataclass(frozen=True)
class Score:
    """log_likelihood in nats; scored_kmers and scored_bp: the k-mers and bases, of length_bp, that it is summed over.
    Without a prefix, the first k-mer has no context and is not scored. A tail without a token is not scored either."""

    log_likelihood: float
    scored_kmers: int
    scored_bp: int
    length_bp: int

    @property
    def per_bp(self) -> float:
        """Nats per scored base; NaN if no base is scored."""
        return self.log_likelihood / self.scored_bp if self.scored_bp else float("nan")


@torch.no_grad()
def token_log_probs(
    inference: Inference, sequences: Sequence[TokenIds], first: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """log P(id t | the ids before it), for each sequence from t = first[i] >= 1 (default 1) to its last id.

    Returns float32 (n,), those of all sequences in order, and their number in each sequence.
    """
    rows = inference.hidden_rows(sequences, [-1])
    begin, end = rows.bounds.T
    begin = begin + (1 if first is None else np.asarray(first, np.int64))
    counts = np.maximum(end - begin, 0)
    target = torch.from_numpy(indices_of(begin, counts)).to(rows.token_ids.device)
    if not len(target):
        return np.empty(0, np.float32), counts
    parts = [
        target_log_probs(inference, some, wanted)
        for some, wanted in zip(
            rows.states[0][target - 1].split(ROWS_OF_LOGITS),
            rows.token_ids[target].split(ROWS_OF_LOGITS),
            strict=True,
        )
    ]
    return torch.cat(parts).cpu().numpy(), counts


def target_log_probs(inference: Inference, rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log P(target) of up to ROWS_OF_LOGITS rows (R, D): float32 (R,).

    The Triton kernels do not write the logits. On other devices the logits are computed with the product whose rows do
    not depend on each other (ops/linear.py), equal rows of the projection once; the rows of combined_loss on the CPU do
    depend on each other.
    """
    last = inference.model.last_projection
    if not loss_is_batch_independent(rows.device.type) or type(last) not in PLAIN:
        distinct = inference.distinct_head
        if distinct is not None:
            at = distinct.place[targets]
            logs = inference.logits(rows, distinct.rows).float().log_softmax(-1)
            return logs.gather(1, at[:, None])[:, 0] - distinct.log_count[at]
        return inference.logits(rows).float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    # the kernels split the vocabulary by the number of rows: with a constant number, a row's bits are constant
    spare = ROWS_OF_LOGITS - len(rows)
    hidden = inference.head_rows(F.pad(rows, (0, 0, 0, spare)))
    targets = F.pad(targets, (0, spare), value=IGNORE_INDEX)
    found = combined_loss(hidden, last.weight, targets, bias=last.bias, return_log_probs=True).log_probs
    return cast(torch.Tensor, found)[: len(rows)]


def score(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    sequences: Iterable[Source],
    *,
    prefix: str = "<R>",
    overlap: int | None = None,
    both_strands: bool = False,
    max_tokens: int = 4096,
    progress: Callable[[int], object] = lambda bases: None,
) -> Iterator[Score]:
    """The score of each sequence, in order. A sequence is text, a range of a genome (`genome["chr1:10-20"]`), bytes, an
    array of letters, or an object of Biopython, pyfaidx or pysam; `sequences` may be a column of a table.

    prefix        tokens before every window; the species token that the model was trained with, or ""
    overlap       k-mers of context that windows repeat; default half of max_len
    both_strands  return the mean of the log-likelihoods of the sequence and of its reverse complement
    max_tokens    tokens in a batch; limits the memory
    progress      called with the number of bases done since its last call; each strand counts
    Raises ValueError for settings or sequences that cannot be used, TypeError for one sequence where a list is wanted;
    the message names the row.

    >>> from dnagpt_fast import load_model
    >>> model, tokenizer = load_model("dna_gpt6m_m")
    >>> [(one.scored_bp, one.log_likelihood < 0) for one in score(model, tokenizer, ["ACGTACGTACGT"])]
    [(12, True)]
    """
    check_is_list(sequences)
    first = prefix_ids(tokenizer, prefix)
    overlap = model.max_len // 2 if overlap is None else overlap
    if not 0 <= overlap < model.max_len - len(first):
        raise ValueError(f"overlap = {overlap} tokens: wanted 0..{model.max_len - len(first) - 1}")
    chunks = window_chunks(
        tokenizer, sequences, first, model.max_len, overlap, both_strands, BATCHES_AHEAD * max_tokens
    )
    strands = _strand_scores(Inference(model), tokenizer, chunks, max_tokens, progress)
    if not both_strands:
        return strands
    return (
        Score((one.log_likelihood + other.log_likelihood) / 2, one.scored_kmers, one.scored_bp, one.length_bp)
        for one, other in zip(strands, strands, strict=True)
    )


def _strand_scores(
    inference: Inference,
    tokenizer: KmerTokenizer,
    chunks: Iterator[list[TokenWindow]],
    max_tokens: int,
    progress: Callable[[int], object],
) -> Iterator[Score]:
    total, scored, kmers = 0.0, 0, 0
    for chunk in chunks:
        sums, counts = np.zeros(len(chunk)), np.zeros(len(chunk), np.int64)
        for batch in row_batches([len(window.ids) for window in chunk], max_tokens):
            some = [chunk[i] for i in batch]
            new = [max(window.n_prefix + window.n_context, 1) for window in some]
            logs, counts[batch] = token_log_probs(inference, [window.ids for window in some], new)
            sums[batch] = segment_sums(logs, counts[batch])
            progress(sum(window.new_bp for window in some))
        for window, part, count in zip(chunk, sums.tolist(), counts.tolist(), strict=True):
            total, scored = total + part, scored + count
            kmers += len(window.ids) - window.n_prefix - window.n_context
            if window.is_last:
                usable = window.strand_bp
                if not tokenizer.dynamic_kmer:
                    usable -= usable % tokenizer.k
                # only first k-mers are not scored, and only a sequence of one k-mer has a short first one
                yield Score(total, scored, max(usable - tokenizer.k * (kmers - scored), 0), window.strand_bp)
                total, scored, kmers = 0.0, 0, 0


def segment_sums(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """float64 (n,): the sum of the first counts[0] values, of the next counts[1] and so on, in float64. The bits of a
    sum do not depend on the others."""
    sums = np.zeros(len(counts))
    some = counts > 0
    if some.any():
        sums[some] = np.add.reduceat(values.astype(np.float64), (np.cumsum(counts) - counts)[some])
    return sums
