"""What is promised of scores and embeddings on a card (docs/inference.md): the same bits from the same call, and
rounding's difference from other batches and from the CPU."""

import numpy as np
import pytest
import torch

from dnagpt_fast import DNAGPT, KmerTokenizer, embed, score
from dnagpt_fast.model.config import ModelConfig

pytestmark = pytest.mark.gpu


@pytest.fixture
def sequences():
    generator = np.random.default_rng(0)
    return ["".join(generator.choice(list("ACGT"), 6 * n)) for n in (1, 3, 17, 40, 41, 90, 120, 300, 17, 64)]


def made_model(device):
    torch.manual_seed(1)
    tokenizer = KmerTokenizer(6)
    return DNAGPT.from_config(ModelConfig(len(tokenizer), 128, 2, 4, 128, False)).to(device).eval(), tokenizer


def scores(model, tokenizer, sequences, **settings):
    return np.array([one.log_likelihood for one in score(model, tokenizer, sequences, **settings)])


def vectors(model, tokenizer, sequences, **settings):
    return np.array(list(embed(model, tokenizer, sequences, **settings)))


@pytest.mark.parametrize("function", [scores, vectors])
def test_the_same_call_gives_the_same_bits(device, function, sequences):
    model, tokenizer = made_model(device)
    assert np.array_equal(*(function(model, tokenizer, sequences) for _ in range(2)))


@pytest.mark.parametrize("function", [scores, vectors])
def test_other_batches_and_the_cpu_differ_by_rounding_only(device, function, sequences):
    model, tokenizer = made_model(device)
    together = function(model, tokenizer, sequences)
    alone = np.concatenate([function(model, tokenizer, [one]) for one in sequences])
    small = function(model, tokenizer, sequences, max_tokens=64)
    here = function(model.to("cpu"), tokenizer, sequences)
    for other in (alone, small, here):
        np.testing.assert_allclose(together, other, rtol=2e-5, atol=2e-5)


def test_half_precision_is_near(device, sequences):
    model, tokenizer = made_model(device)
    wanted = scores(model, tokenizer, sequences)
    found = scores(model.to(torch.bfloat16), tokenizer, sequences)
    np.testing.assert_allclose(found, wanted, rtol=0.01)
