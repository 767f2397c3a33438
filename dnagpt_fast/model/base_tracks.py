"""P(A), P(C), P(G), P(T) at every base of a range of a genome, independent of the range.

As in marginals.py: for each of the k phases the contig is cut into k-mers, and the first base of a k-mer is predicted
from the k-mers before it. Windows are on a grid that starts at the first base of the contig, not of the range: window w
of a phase predicts k-mers w * stride to (w + 1) * stride - 1 and begins `overlap` k-mers before them. So every base has
between `overlap` k-mers and a full window of context, and its values do not depend on the range or the batch.
"""

from dataclasses import dataclass

import torch

from dnagpt_fast.model.inference import Inference, row_batches
from dnagpt_fast.model.marginals import NextBase, context_prefix
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.packed import PackedRange

WINDOWS_AHEAD = 8
"""The windows of so many batches are in memory at once, as ids."""


@dataclass(frozen=True)
class _Window:
    """ids: prefix and k-mers. `bases` rows from `row` on predict the bases `first`, `first` + k, ... of the range."""

    ids: list[int]
    row: int
    first: int
    bases: int


class BaseTracks:
    """A model's probabilities along contigs.

    prefix      tokens before every window; the species token that the model was trained with
    overlap     minimum context of a base in k-mers; default half of the model's context
    max_tokens  tokens at once; limits the memory and does not change the result
    Raises ValueError for settings that cannot be used.
    """

    def __init__(
        self,
        inference: Inference,
        tokenizer: KmerTokenizer,
        *,
        prefix: str = "<R>",
        overlap: int | None = None,
        max_tokens: int = 4096,
    ) -> None:
        self.inference = inference
        self.tokenizer = tokenizer
        self.prefix = context_prefix(tokenizer, prefix)
        self.max_tokens = max_tokens
        room = inference.model.max_len - len(self.prefix)
        self.overlap = room // 2 if overlap is None else overlap
        if not 0 <= self.overlap < room:
            raise ValueError(f"overlap = {self.overlap} tokens: wanted 0..{room - 1}")
        # a window of `room` k-mers also predicts the k-mer after its last one
        self.stride = room - self.overlap + 1
        self._next_base = NextBase(inference, tokenizer)

    def strand(self, contig: PackedRange, start: int, end: int) -> torch.Tensor:
        """float32 (end - start, 4), columns A C G T, for the bases [start, end) of a whole contig; the contig is given
        on the strand to read, and positions count on this strand."""
        out = torch.empty(end - start, 4)
        waiting: list[_Window] = []
        held = 0
        for phase in range(self.tokenizer.k):
            for window in self._windows(contig, start, end, phase):
                waiting.append(window)
                held += len(window.ids)
                if held > WINDOWS_AHEAD * self.max_tokens:
                    self._fill(out, waiting)
                    waiting, held = [], 0
        self._fill(out, waiting)
        return out

    def both_strands(self, contig: PackedRange, start: int, end: int) -> torch.Tensor:
        """As `strand`, but the mean of the probabilities of both strands; columns as on the strand of `contig`."""
        other = contig.reverse_complement()
        of_other = self.strand(other, len(contig) - end, len(contig) - start)
        return (self.strand(contig, start, end) + of_other.flip(0, 1)) / 2

    def _windows(self, contig: PackedRange, start: int, end: int, phase: int) -> list[_Window]:
        k = self.tokenizer.k
        first = max(-(-(start - phase) // k), 0)  # k-mers that begin in the range
        stop = max(-(-(end - phase) // k), 0)
        windows = []
        for w in range(first // self.stride, -(-stop // self.stride) if stop > first else 0):
            begin, finish = max(w * self.stride, first), min((w + 1) * self.stride, stop)
            if begin >= finish:
                continue
            read = max(w * self.stride - self.overlap, 0)
            # the whole window, even if the range ends before it: the bits of a row depend on the length of its window
            last = min((w + 1) * self.stride, -(-(len(contig) - phase) // k)) - 1
            bases = contig.part(phase + k * read, phase + k * last)
            kmers = self.tokenizer.encode_packed(bases).tolist() if len(bases) else []
            # the prefix's last token predicts the first k-mer read, each k-mer the one after it
            row = len(self.prefix) - 1 + begin - read
            windows.append(_Window([*self.prefix, *kmers], row, phase + k * begin - start, finish - begin))
        return windows

    def _fill(self, out: torch.Tensor, windows: list[_Window]) -> None:
        for batch in row_batches([len(window.ids) for window in windows], self.max_tokens):
            some = [windows[i] for i in batch]
            states = self.inference.hidden_states([window.ids for window in some])
            rows = torch.cat([s[w.row : w.row + w.bases] for s, w in zip(states, some, strict=True)])
            parts = self._next_base(rows).split([window.bases for window in some])
            for window, answer in zip(some, parts, strict=True):
                stop = window.first + self.tokenizer.k * window.bases
                out[window.first : stop : self.tokenizer.k] = answer
