"""Losses and predictions of the four tasks, from a DNAGPT and a batch."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from dnagpt_fast.batch import IGNORE_INDEX
from dnagpt_fast.finetune.task_data import TaskBatch
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops.combined_loss.op import combined_loss


class TaskLosses(nn.Module):
    """batch -> losses by name, as training/loop.py needs them; `predict` gives the predictions.

    answers           ids of the classes' tokens (classification, tagging)
    whole_vocabulary  the training softmax is over all tokens; the softmax of `predict` is always over the
                      answers
    """

    def __init__(
        self, model: DNAGPT, kind: str, answers: Sequence[int] = (), *, whole_vocabulary: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.kind = kind
        self.whole_vocabulary = whole_vocabulary
        self.register_buffer("answers", torch.tensor(list(answers), dtype=torch.int64), persistent=False)

    def forward(self, batch: TaskBatch) -> dict[str, torch.Tensor]:
        if self.kind == "generation":
            return {"loss": self._token_losses(batch, "mean")}
        if self.kind == "tagging":
            each = self._token_losses(batch, "none").view(batch.target.shape)
        else:
            each = self.row_losses(batch)
        return {"loss": (each * batch.weight).sum() / batch.weight.sum()}

    def row_losses(self, batch: TaskBatch) -> torch.Tensor:
        """(B,) unweighted: cross-entropy of the class in nats, squared error of the standardised target, or the sum of
        the cross-entropies of the sequence's tokens, or of its k-mers' classes, in nats."""
        if self.kind in ("generation", "tagging"):
            return self._token_losses(batch, "none").view(batch.target.shape).sum(1)
        read = self._read(batch)
        if self.kind == "regression":
            return (self.model.num_regression(read).squeeze(-1).float() - batch.target) ** 2
        answers = cast(torch.Tensor, self.answers)
        last = self.model.last_projection
        return combined_loss(
            self.model.head_rows(read),
            last.weight,
            answers[batch.target],
            bias=last.bias,
            classes=None if self.whole_vocabulary else answers,
            reduction="none",
        ).total

    def predict(self, batch: TaskBatch) -> torch.Tensor:
        """Classification: probabilities of the answers (B, C); tagging: at each token (B, T, C), meaningful
        at k-mers; regression: standardised values (B,). float32"""
        raw = self.answer(batch)
        return raw if self.kind == "regression" else raw.softmax(-1)

    def answer(self, batch: TaskBatch) -> torch.Tensor:
        """`predict` before the softmax: logits of the answers, or standardised values. float32"""
        read = self.model.hidden_states(batch.token_ids) if self.kind == "tagging" else self._read(batch)
        if self.kind == "regression":
            return self.model.num_regression(read).squeeze(-1).float()
        answers = cast(torch.Tensor, self.answers)
        last = self.model.last_projection
        bias = None if last.bias is None else last.bias[answers]
        return nn.functional.linear(self.model.head_rows(read), last.weight[answers], bias).float()

    def _read(self, batch: TaskBatch) -> torch.Tensor:
        """Hidden states (B, D) at the answer positions."""
        hidden = self.model.hidden_states(batch.token_ids, batch.numbers, batch.number_block)
        return hidden[torch.arange(len(hidden), device=hidden.device), batch.read_at]

    def _token_losses(self, batch: TaskBatch, reduction: str) -> torch.Tensor:
        """The loss of the next token, or of the class of this token."""
        hidden = self.model.hidden_states(batch.token_ids)
        last = self.model.last_projection
        target, classes = batch.target, None
        if self.kind == "tagging":
            answers = cast(torch.Tensor, self.answers)
            target = torch.where(target == IGNORE_INDEX, IGNORE_INDEX, answers[target.clamp(min=0)])
            classes = None if self.whole_vocabulary else answers
        return combined_loss(
            self.model.head_rows(hidden).flatten(0, 1),
            last.weight,
            target.flatten(),
            bias=last.bias,
            classes=classes,
            ignore_index=IGNORE_INDEX,
            reduction=reduction,
        ).total
