"""A fine-tuned model's answer for a sequence as one number, and the gradient of that number at the token embeddings.

The number is what maps of mutations and attributions explain: for classification the log-odds of one class against all
others, in nats; for regression the value of the label.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dnagpt_fast.finetune.data.examples import Examples, LabelError, clean_sequences
from dnagpt_fast.finetune.predict import load_finetuned
from dnagpt_fast.finetune.prepare import encode
from dnagpt_fast.finetune.settings import ConfigError
from dnagpt_fast.finetune.task_data import TaskBatch, TaskData
from dnagpt_fast.finetune.task_loss import TaskLosses
from dnagpt_fast.ops.combined_loss.occurring import plain_kmers
from dnagpt_fast.training.devices import pick_device


@dataclass(frozen=True)
class EmbeddingGradients:
    """Of one sequence, along the straight line from a baseline to its embeddings.

    pieces      the k-mers as text, one for each token of the sequence
    embeddings  float32 (T, D): of these tokens; baseline (D,): the mean embedding of all k-mers over A, C, G, T
    gradients   float32 (P, T, D): of the answer at each of the P points
    answers     float64 (P,): the answer at each point
    """

    pieces: list[str]
    embeddings: torch.Tensor
    baseline: torch.Tensor
    gradients: torch.Tensor
    answers: np.ndarray


class Answer:
    """The answer of the best model of a fine-tuning run.

    label    classification: the class whose log-odds are the answer; may be left out with two classes, where it is the
             second one (`task.positive`)
    numbers  regression with side inputs: their values, in the order of data.number_columns
    Raises ConfigError for a folder that is no such run, a task without one answer for a sequence, a label that is no
    class, and a wrong count of numbers; CheckpointError for damaged files.
    """

    def __init__(
        self,
        run: Path,
        *,
        label: str | None = None,
        numbers: Sequence[float] = (),
        device: str = "auto",
        batch_size: int = 32,
    ) -> None:
        model, self.language, _ = load_finetuned(run)
        kind, classes = self.language.template.kind, self.language.classes
        if kind not in ("classification", "regression"):
            raise ConfigError(f"{run} was tuned for {kind}, which has no single answer for a sequence")
        if len(numbers) != self.language.template.numbers:
            raise ConfigError(
                f"{len(numbers)} number(s) given: {run} was tuned with {self.language.template.numbers} of them beside "
                "each sequence"
            )
        if kind == "regression" and label is not None:
            raise ConfigError(f"label = {label!r}: {run} was tuned for regression, which has no classes")
        if kind == "classification" and label is None and len(classes) > 2:
            raise ConfigError(f"{run} has {len(classes)} classes: choose one of {', '.join(classes)}")
        if label is not None and label not in classes:
            raise ConfigError(f"label = {label!r}: wanted one of {', '.join(classes)}")
        self.label = label if label is not None else (classes[1] if classes else None)
        self.name = "value" if self.label is None else f"log-odds of {self.label}"
        self.longest_bp = self.language.template.longest_bp(model.max_len)
        self.k = self.language.template.vocabulary.k
        self.batch_size = batch_size
        self._numbers = tuple(numbers)
        self._device = pick_device(device, what="device")
        self._losses = TaskLosses(model, kind, self.language.answers).to(self._device)
        self._losses.requires_grad_(False)

    def values(self, sequences: Sequence[str], *, name: str = "sequence") -> np.ndarray:
        """float64 (n,): the answer for each sequence. Raises LabelError for letters that are no bases, an empty
        sequence, and one that is longer than the model reads."""
        data = self._encoded(sequences, name)
        found = np.empty(len(data))
        with torch.no_grad():
            for batch in data.in_order_of_length(self.batch_size):
                found[batch.row.numpy()] = self._of(batch.to(self._device)).double().cpu().numpy()
        return found

    def gradients(
        self,
        sequence: str,
        fractions: Sequence[float],
        *,
        name: str = "sequence",
        progress: Callable[[int], object] = lambda points: None,
    ) -> EmbeddingGradients:
        """Gradients at baseline + fraction * (embeddings - baseline); the tokens of the prompt stay as they are.
        progress: called with the number of fractions done since its last call. Raises LabelError as `values`."""
        data = self._encoded([sequence], name)
        template, table = self.language.template, self._losses.model.transformer.wte.weight
        bases = template.usable(data.examples.sequence[0])
        pieces = [bases[i : i + self.k] for i in range(0, len(bases), self.k)]
        # the species is the first token, the sequence's follow
        place = slice(1, 1 + len(pieces))
        baseline = table[plain_kmers(template.vocabulary).to(table.device)].float().mean(0)
        found, answers = [], []
        batch = data.batch([0]).to(self._device)
        embeddings = table[batch.token_ids[0, place]].float()
        for fraction in fractions:
            point = baseline + fraction * (embeddings - baseline)
            with self._in_place_of_embeddings(point, place) as given:
                answer = self._of(batch)
                found.append(torch.autograd.grad(answer.sum(), given)[0].float().cpu())
                answers.append(float(answer.detach()))
            progress(1)
        return EmbeddingGradients(
            pieces, embeddings.cpu(), baseline.cpu(), torch.stack(found), np.array(answers)
        )

    def embedding_of(self, piece: str) -> torch.Tensor:
        """float32 (D,): of a k-mer, on the CPU."""
        at = self.language.template.vocabulary.kmer_id(piece)
        return self._losses.model.transformer.wte.weight[at].float().cpu()

    def _encoded(self, sequences: Sequence[str], name: str) -> TaskData:
        where = [name if len(sequences) == 1 else f"{name} {i + 1}" for i in range(len(sequences))]
        cleaned = clean_sequences(list(sequences), where)
        for text, place in zip(cleaned, where, strict=True):
            if len(text) > self.longest_bp:
                raise LabelError(
                    f"{place}: {len(text):,} bases: this model with its prompt reads {self.longest_bp:,}"
                )
        numbers = np.tile(np.array(self._numbers, np.float64), (len(sequences), 1))
        return encode(Examples(Path(name), where, cleaned, None, numbers), self.language, labelled=False)

    def _of(self, batch: TaskBatch) -> torch.Tensor:
        """float (B,)"""
        raw = self._losses.answer(batch)
        if self.language.template.kind == "regression":
            scale = self.language.standardisation
            assert scale is not None
            return raw.double() * scale.target_sd + scale.target_mean
        at = self.language.classes.index(self.label or "")
        others = [i for i in range(raw.shape[1]) if i != at]
        return raw[:, at] - raw[:, others].logsumexp(1)

    @contextmanager
    def _in_place_of_embeddings(self, point: torch.Tensor, place: slice) -> Iterator[torch.Tensor]:
        """Within, the embeddings of the tokens at `place` are `point`, in which gradients can be taken."""
        table = self._losses.model.transformer.wte
        given = point.to(table.weight.dtype).requires_grad_()

        def replaced(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
            return torch.cat([output[:, : place.start], given[None], output[:, place.stop :]], 1)

        handle = table.register_forward_hook(replaced)
        try:
            yield given
        finally:
            handle.remove()
