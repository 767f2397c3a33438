"""Muon's step by its equation, with separate q, k and v, and AdamW's step for all other parameters."""

from copy import deepcopy as copy_of

import pytest
import torch
from torch import nn

from dnagpt_fast.training.muon import MuonWithAdamW, orthogonal
from dnagpt_fast.training.optimizer import build_optimizer

SETTINGS = {"lr": 0.01, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.1}


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_orthogonal_keeps_singular_vectors_and_levels_singular_values(shape):
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = left @ torch.diag(torch.linspace(0.3, 2.0, 8)) @ right
    made = orthogonal(matrix[None])[0]
    in_place = left.mT @ made @ right.mT
    values = in_place.diagonal()
    torch.testing.assert_close(in_place, torch.diag(values), rtol=0, atol=1e-4)
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_a_step_by_its_equation_with_separate_q_k_v():
    """Two steps of a (3 D, D) matrix in float64: momentum, Nesterov, three orthogonal steps, decay."""
    torch.manual_seed(1)
    layer = nn.Linear(6, 18, bias=False)
    optimizer = build_optimizer(layer, **SETTINGS, muon={layer.weight: 3})
    weight, momentum = layer.weight.detach().clone(), torch.zeros(18, 6)
    for _ in range(2):
        gradient = torch.randn(18, 6)
        momentum = 0.95 * momentum + 0.05 * gradient
        ahead = 0.05 * gradient + 0.95 * momentum
        step = torch.cat([orthogonal(piece[None])[0] for piece in ahead.split(6)]) * 0.2 * 6**0.5
        weight = weight * (1 - 0.01 * 0.1) - 0.01 * step
        layer.weight.grad = gradient
        optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-5, atol=1e-6)


def test_other_parameters_take_the_step_of_adamw():
    torch.manual_seed(2)
    model = nn.ModuleDict({"hidden": nn.Linear(4, 4, bias=False), "head": nn.Linear(4, 3)})
    plain = nn.Linear(4, 3)
    plain.load_state_dict(model["head"].state_dict())
    both = build_optimizer(model, **SETTINGS, muon={model["hidden"].weight: 1})
    alone = build_optimizer(plain, **SETTINGS)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        plain.weight.grad, plain.bias.grad = model["head"].weight.grad, model["head"].bias.grad
        both.step(), alone.step()
    torch.testing.assert_close(model["head"].weight, plain.weight, rtol=0, atol=0)
    torch.testing.assert_close(model["head"].bias, plain.bias, rtol=0, atol=0)


def test_the_state_goes_through_state_dict():
    torch.manual_seed(3)
    layer = nn.Linear(4, 4)
    gradients = [torch.randn(4, 4) for _ in range(4)]

    def steps(optimizer, of, some):
        for gradient in some:
            of.weight.grad, of.bias.grad = gradient.clone(), gradient[0].clone()
            optimizer.step()

    def optimizer_of(of):
        return build_optimizer(of, **SETTINGS, muon={of.weight: 1})

    first = optimizer_of(layer)
    steps(first, layer, gradients[:2])
    copy = nn.Linear(4, 4)
    copy.load_state_dict(layer.state_dict())
    second = optimizer_of(copy)
    second.load_state_dict(copy_of(first.state_dict()))
    steps(first, layer, gradients[2:])
    steps(second, copy, gradients[2:])
    assert torch.equal(layer.weight, copy.weight)
    assert torch.equal(layer.bias, copy.bias)


def test_other_shapes_than_matrices_and_mixed_groups_are_refused():
    layer = nn.Linear(4, 4)
    with pytest.raises(ValueError, match=r"Muon takes matrices: a parameter is \(4,\)"):
        MuonWithAdamW([{"params": [layer.bias]}], pieces={layer.bias: 1})
    with pytest.raises(ValueError, match="wanted one kind"):
        MuonWithAdamW([{"params": [layer.weight, layer.bias]}], pieces={layer.weight: 1})
