"""Decay groups and the learning rate."""

import pytest
import torch
from torch import nn

from dnagpt_fast.training.optimizer import build_optimizer, warmup_cosine


def test_only_weights_of_linear_layers_decay():
    model = nn.ModuleDict({"emb": nn.Embedding(5, 4), "norm": nn.LayerNorm(4), "lin": nn.Linear(4, 3)})
    frozen = nn.Linear(2, 2).requires_grad_(False)
    model["frozen"] = frozen
    optimizer = build_optimizer(model, lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.5)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = {name: decay.get(id(p)) for name, p in model.named_parameters()}
    assert names == {
        "emb.weight": 0.0, "norm.weight": 0.0, "norm.bias": 0.0, "lin.weight": 0.5, "lin.bias": 0.0,
        "frozen.weight": None, "frozen.bias": None,
    }  # fmt: skip


def test_a_step_is_adamw_by_its_equation():
    """Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, one step from moments of
    0."""
    layer = nn.Linear(3, 2, bias=False)
    weight, gradient = layer.weight.detach().double(), torch.randn(2, 3)
    optimizer = build_optimizer(layer, lr=0.01, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    layer.weight.grad = gradient
    optimizer.step()
    expected = weight * (1 - 0.01 * 0.1) - 0.01 * gradient.double() / (gradient.double().abs() + 1e-8)
    torch.testing.assert_close(layer.weight.detach().double(), expected, rtol=1e-6, atol=1e-7)


def test_warmup_then_cosine():
    rate = warmup_cosine(2.0, 4, 12, min_share=0.1)
    assert [rate(step) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert rate(7) == pytest.approx(0.2 + 1.8 / 2)
    assert rate(11) == pytest.approx(0.2)
    assert all(rate(step) > rate(step + 1) for step in range(3, 11))


def test_no_warmup_starts_high_and_a_run_of_warmup_ends_there():
    assert warmup_cosine(1.0, 0, 100)(0) > 0.999
    assert warmup_cosine(1.0, 5, 5)(4) == 1.0


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warm-up of 11 steps in a run of 10"):
        warmup_cosine(1.0, 11, 10)
