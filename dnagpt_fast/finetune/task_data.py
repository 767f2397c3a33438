"""Rows of a task as batches: encoded once, drawn in an order that depends only on (seed, step).

Shorter rows are padded on the right. Attention is causal, so no token sees the padding after it, and no
result is read from a padded position: each row gives the same result as alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from dnagpt_fast.batch import IGNORE_INDEX, on_device
from dnagpt_fast.finetune.data.examples import Examples, LabelError
from dnagpt_fast.finetune.language import Standardisation
from dnagpt_fast.finetune.templates import TaskTemplate
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import PAD_ID


@dataclass(frozen=True)
class TaskBatch:
    """B rows.

    token_ids      int64 (B, T), padded on the right with the pad token
    read_at        int64 (B,): the position whose output is the answer, counted with the inserted numbers
    numbers        float32 (B, m) standardised, or None; number_block int64 (B, 2): tokens before and after them
    target         classification int64 (B,) class; regression float32 (B,) standardised; generation int64 (B, T - 1),
                   IGNORE_INDEX where nothing is predicted; tagging int64 (B, T): the class of each k-mer, IGNORE_INDEX
                   elsewhere
    weight         float32 (B,): weight of the row in the loss; tagging (B, T): of each k-mer, 0 elsewhere
    row            int64 (B,): row numbers in the set, on the host
    """

    token_ids: torch.Tensor
    read_at: torch.Tensor
    numbers: torch.Tensor | None
    number_block: torch.Tensor | None
    target: torch.Tensor
    weight: torch.Tensor
    row: torch.Tensor

    def to(self, device: torch.device | str) -> "TaskBatch":
        moved = {}
        for item in fields(self):
            value = getattr(self, item.name)
            stays = item.name in ("row", "number_block") or value is None
            moved[item.name] = value if stays else on_device(value, device)
        return replace(self, **moved)


class TaskData:
    """Encoded rows of one set (training, validation, test, or rows to predict)."""

    def __init__(
        self,
        examples: Examples,
        template: TaskTemplate,
        tokenizer: KmerTokenizer,
        *,
        standardisation: Standardisation | None = None,
        targets: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        tag_weights: np.ndarray | None = None,
    ) -> None:
        """targets: int64 classes or standardised float32; None for rows to predict, for generation, and for tagging,
        whose targets are the examples' tags. tag_weights: float (classes,), of tagging; None: all 1.

        Raises LabelError for a sequence that is shorter than one token of a fixed vocabulary.
        """
        self.examples = examples
        self.template = template
        self.encoded = []
        for sequence, where in zip(examples.sequence, examples.where, strict=True):
            if not template.usable(sequence):
                raise LabelError(
                    f"{where}: {len(sequence)} bases: the fixed vocabulary has tokens of {template.vocabulary.k} "
                    "bases only"
                )
            self.encoded.append(np.array(template.encode(sequence, tokenizer), np.int64))
        self.length = np.array([len(ids) for ids in self.encoded], np.int64)
        self.numbers = None
        if template.numbers:
            assert standardisation is not None
            self.numbers = standardisation.numbers(examples.numbers)
        self.targets = np.zeros(len(examples), np.float32) if targets is None else targets
        self.weights = np.ones(len(examples), np.float32) if weights is None else weights.astype(np.float32)
        self.tag_weights = None if tag_weights is None else tag_weights.astype(np.float32)

    def __len__(self) -> int:
        return len(self.encoded)

    def batch(self, rows: Sequence[int] | np.ndarray) -> TaskBatch:
        """The batch of these rows, on the host."""
        at = np.asarray(rows, np.int64)
        longest = int(self.length[at].max())
        token_ids = np.full((len(at), longest), PAD_ID, np.int64)
        for out, row in zip(token_ids, at.tolist(), strict=True):
            out[: self.length[row]] = self.encoded[row]
        length = self.length[at]
        numbers, block = None, None
        if self.numbers is not None:
            numbers = torch.from_numpy(self.numbers[at])
            before = length - 2
            block = torch.from_numpy(np.stack([before, longest - before], axis=1))
        target = torch.from_numpy(self.targets[at])
        if self.template.kind == "generation":
            following = np.where(np.arange(1, longest) < length[:, None], token_ids[:, 1:], IGNORE_INDEX)
            target = torch.from_numpy(following)
            token_ids = token_ids[:, :-1]
        weight = torch.from_numpy(self.weights[at])
        if self.examples.tags is not None:
            target, weight = self._tags(at, longest)
        return TaskBatch(
            token_ids=torch.from_numpy(np.ascontiguousarray(token_ids)),
            read_at=torch.from_numpy(length - 1 + self.template.numbers),
            numbers=numbers,
            number_block=block,
            target=target,
            weight=weight,
            row=torch.from_numpy(at),
        )

    def _tags(self, at: np.ndarray, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Class and weight (B, T) of each k-mer, which are the tokens after the species."""
        assert self.examples.tags is not None
        target = np.full((len(at), longest), IGNORE_INDEX, np.int64)
        weight = np.zeros((len(at), longest), np.float32)
        for i, row in enumerate(at.tolist()):
            tags = self.examples.tags[row]
            place = slice(1, 1 + len(tags))
            target[i, place] = tags
            weight[i, place] = 1 if self.tag_weights is None else self.tag_weights[tags]
        return torch.from_numpy(target), torch.from_numpy(weight)

    def training_rows(self, first: int, count: int, seed: int) -> np.ndarray:
        """Row numbers of the samples first .. first + count - 1 of an endless sequence. Each epoch has every
        row once, in an order that depends only on (seed, epoch)."""
        samples = np.arange(first, first + count)
        epoch, place = samples // len(self), samples % len(self)
        rows = np.empty(count, np.int64)
        for e in np.unique(epoch).tolist():
            order = np.random.Generator(np.random.Philox(key=[seed, e])).permutation(len(self))
            rows[epoch == e] = order[place[epoch == e]]
        return rows

    def in_order_of_length(self, batch_size: int, *, equal: bool = False) -> Iterator[TaskBatch]:
        """Every row once, in batches of rows of similar length, or of equal length: then no row is padded."""
        order = np.argsort(self.length, kind="stable")
        first = 0
        while first < len(order):
            batch = order[first : first + batch_size]
            if equal:
                batch = batch[self.length[batch] == self.length[batch[0]]]
            yield self.batch(batch)
            first += len(batch)

    def describe(self, batch: TaskBatch) -> list[str]:
        """One line per row, for error messages about a batch."""
        return [self.examples.where[row] for row in batch.row.tolist()]
