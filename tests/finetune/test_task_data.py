"""Batches: rows of mixed lengths give the same results as alone; the order depends only on (seed, step)."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dnagpt_fast.batch import IGNORE_INDEX
from dnagpt_fast.finetune.data.examples import Examples, LabelError
from dnagpt_fast.finetune.language import Standardisation
from dnagpt_fast.finetune.task_data import TaskData
from dnagpt_fast.finetune.task_loss import TaskLosses
from dnagpt_fast.finetune.templates import TaskTemplate, answer_tokens
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import PAD_ID, Vocabulary
from tests.finetune.data.genomes import random_bases

# one token, a tail of every length, the longest that fits with prompt and numbers
LENGTHS = [1, 2, 3, 7, 12, 19, 30, 48]


def data_of(kind, *, numbers=0, lengths=LENGTHS, dynamic=True):
    vocabulary = Vocabulary(3, dynamic)
    n = len(lengths)
    rng = np.random.default_rng(0)
    examples = Examples(
        path=Path("x.csv"),
        where=[f"x.csv:{i + 2}" for i in range(n)],
        sequence=[random_bases(length, seed=i) for i, length in enumerate(lengths)],
        label=None,
        numbers=rng.normal(5, 2, (n, numbers)),
        tags=[rng.integers(0, 3, -(-length // 3)) for length in lengths] if kind == "tagging" else None,
    )
    targets = None
    if kind == "classification":
        targets = np.arange(n) % 2
    elif kind == "regression":
        targets = rng.normal(size=n).astype(np.float32)
    return TaskData(
        examples,
        TaskTemplate(kind, "R", vocabulary, numbers),
        KmerTokenizer(3, dynamic_kmer=dynamic),
        standardisation=Standardisation.of(examples.numbers, None),
        targets=targets,
    )


def losses_for(data, **settings):
    model = DNAGPT(len(data.template.vocabulary), 32, 2, 2, 16).double()
    classes = {"classification": 2, "tagging": 3}.get(data.template.kind)
    answers = answer_tokens(data.template.vocabulary, classes) if classes else ()
    return TaskLosses(model, data.template.kind, answers, **settings)


def in_double(batch):
    wide = {
        f.name: v.double()
        if isinstance(v := getattr(batch, f.name), torch.Tensor) and v.is_floating_point()
        else v
        for f in dataclasses.fields(batch)
    }
    return type(batch)(**wide)


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [("classification", 0), ("regression", 0), ("regression", 3), ("generation", 0), ("tagging", 0)],
)
def test_mixed_lengths_give_what_each_row_gives_alone(kind, numbers):
    data = data_of(kind, numbers=numbers)
    losses = losses_for(data)
    together = losses.row_losses(in_double(data.batch(range(len(data)))))
    alone = torch.cat([losses.row_losses(in_double(data.batch([i]))) for i in range(len(data))])
    # the same sums in another order: a few units in the last place of float64 (num_regression answers in float32)
    assert torch.allclose(
        together.double(), alone.double(), rtol=1e-6 if kind == "regression" else 1e-12, atol=1e-9
    )
    gradients = []
    for loss in (together.sum(), alone.sum()):
        losses.zero_grad()
        loss.backward(retain_graph=True)
        gradients.append({n: p.grad.clone() for n, p in losses.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize(("kind", "numbers"), [("classification", 0), ("regression", 3)])
def test_predictions_do_not_depend_on_the_neighbours(kind, numbers):
    data = data_of(kind, numbers=numbers)
    losses = losses_for(data)
    together = losses.predict(in_double(data.batch(range(len(data)))))
    alone = torch.cat([losses.predict(in_double(data.batch([i]))) for i in range(len(data))])
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_numbers_come_before_the_last_two_tokens_of_each_row():
    data = data_of("regression", numbers=3)
    losses = losses_for(data)
    batch = in_double(data.batch([3, 7]))
    hidden = losses.model.embeddings(batch.token_ids, batch.numbers, batch.number_block)
    position = losses.model.transformer.wpe.weight
    for row, source in enumerate((3, 7)):
        tokens = int(data.length[source])
        for i in range(3):
            wanted = (
                losses.model.number_embedding(batch.numbers[row, i].reshape(1, 1))[0]
                + position[tokens - 2 + i]
            )
            assert torch.allclose(hidden[row, tokens - 2 + i], wanted)
        assert int(batch.read_at[row]) == tokens - 1 + 3
        last = losses.model.transformer.wte.weight[data.encoded[source][-1]] + position[tokens + 2]
        assert torch.allclose(hidden[row, tokens + 2], last)


def test_generation_predicts_every_token_and_then_the_end():
    data = data_of("generation", lengths=[4, 9])
    batch = data.batch([0, 1])
    assert batch.token_ids.shape == (2, 4)
    assert batch.target[0].tolist() == [*data.encoded[0][1:].tolist(), IGNORE_INDEX]
    assert batch.target[1].tolist() == data.encoded[1][1:].tolist()
    assert batch.target[0, 2] == PAD_ID


@pytest.mark.parametrize("whole", [False, True])
def test_classification_is_cross_entropy_over_the_answers_or_over_all_tokens(whole):
    data = data_of("classification")
    losses = losses_for(data, whole_vocabulary=whole)
    batch = data.batch(range(len(data)))
    logits = losses.model(batch.token_ids)[torch.arange(len(data)), batch.read_at]
    targets = losses.answers[batch.target]
    if not whole:
        logits, targets = logits[:, losses.answers], batch.target
    wanted = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    assert torch.allclose(losses.row_losses(batch), wanted)
    wide = in_double(dataclasses.replace(batch, weight=torch.linspace(0.1, 2, len(data))))
    assert torch.allclose(losses(wide)["loss"], (wanted * wide.weight).sum() / wide.weight.sum())


def test_every_row_comes_once_an_epoch_for_any_batch_size():
    data = data_of("classification")
    walk = np.concatenate([data.training_rows(first, 3, seed=5) for first in range(0, 48, 3)])
    assert (walk == data.training_rows(0, 48, seed=5)).all()
    for epoch in range(6):
        assert sorted(walk[epoch * 8 : epoch * 8 + 8]) == list(range(8))
    assert (walk[:8] != walk[8:16]).any()
    assert (walk != data.training_rows(0, 48, seed=6)).any()


def test_in_order_of_length_gives_every_row_once():
    data = data_of("classification")
    rows = torch.cat([batch.row for batch in data.in_order_of_length(3)])
    assert sorted(rows.tolist()) == list(range(8))


def test_columns_and_targets_that_do_not_vary_are_an_error():
    with pytest.raises(LabelError, match="number column 1 is the same in every training row"):
        Standardisation.of(np.array([[1.0, 2.0], [3.0, 2.0]]), None)
    with pytest.raises(LabelError, match="every training label is 4"):
        Standardisation.of(np.zeros((3, 0)), np.full(3, 4.0))


def test_standardisation_and_back():
    scale = Standardisation.of(np.array([[1.0], [3.0]]), np.array([10.0, 30.0]))
    assert scale.numbers(np.array([[1.0], [3.0]])).tolist() == [[-1.0], [1.0]]
    assert scale.value(scale.target(np.array([10.0, 25.0]))).tolist() == [10.0, 25.0]


def test_a_sequence_shorter_than_the_fixed_vocabulary_s_tokens():
    with pytest.raises(
        LabelError, match=r"x.csv:3: 2 bases: the fixed vocabulary has tokens of 3 bases only"
    ):
        data_of("classification", lengths=[3, 2], dynamic=False)
