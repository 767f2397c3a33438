"""Decay groups and the learning rate."""

import sys

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


@pytest.mark.parametrize("muon", [False, True])
def test_an_optimizer_needs_no_compiler_and_steps_as_torchs(muon, monkeypatch):
    def made(kind=None):
        layer = nn.Linear(6, 5)
        with torch.no_grad():
            for i, parameter in enumerate(layer.parameters(), 1):
                parameter.copy_(torch.linspace(-1, i, parameter.numel()).view_as(parameter))
        settings = {"lr": 0.1, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.1}
        if kind is None:
            pieces = {layer.weight: 1} if muon else None
            return layer, build_optimizer(layer, **settings, muon=pieces)
        groups = [{"params": [layer.weight]}, {"params": [layer.bias], "weight_decay": 0.0}]
        return layer, kind(groups, **settings, fused=True)

    def three_steps(layer, optimizer):
        for step in range(3):
            optimizer.zero_grad()
            layer(torch.linspace(-1, step, 12).view(2, 6)).square().sum().backward()
            optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        return [parameter.detach() for parameter in layer.parameters()]

    plain = three_steps(*made(torch.optim.AdamW))  # imports the compiler
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    ours = three_steps(*made())
    assert all(map(torch.equal, ours, plain)) is not muon


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
