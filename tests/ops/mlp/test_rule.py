"""The rule of the MLP: its widths are those of its inequality at the planner's rates, and training takes its choice."""

from unittest import mock

import pytest
import torch

from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.layers import MLP
from dnagpt_fast.ops import dispatch, triton_settings
from dnagpt_fast.ops.mlp import launch, rule
from dnagpt_fast.planning.accelerators import accelerator
from dnagpt_fast.planning.predicted import SHARES

CARDS = {"sm_80": "a100", "sm_89": "rtx4090", "sm_90": "h100"}


def test_the_widths_are_those_of_the_inequality():
    assert rule.SHARE.keys() == rule.WIDEST.keys() == CARDS.keys()
    for card, name in CARDS.items():
        gpu, shares = accelerator(name), SHARES[name]
        rate = gpu.peak_tflops["bf16"] * shares.products * 1e12
        memory = gpu.memory_gb_s * shares.memory * 1e9
        widest = 1.5 * rate / (memory * (1 / rule.SHARE[card] - 1))
        assert rule.WIDEST[card] == widest // 64 * 64


@pytest.mark.parametrize(
    ("card", "width", "dtype", "trained", "chosen"),
    [
        ("sm_80", 768, torch.bfloat16, True, "triton"),
        ("sm_80", 768, torch.bfloat16, False, "dense"),
        ("sm_80", 768, torch.float32, True, "dense"),
        ("sm_80", 2048, torch.float16, True, "dense"),
        ("sm_89", 2048, torch.float16, True, "triton"),
        ("sm_90", 768, torch.bfloat16, True, "dense"),
        ("sm_90", 128, torch.bfloat16, True, "triton"),
        ("sm_100", 128, torch.bfloat16, True, "dense"),
    ],
)
def test_what_the_rule_chooses(card, width, dtype, trained, chosen):
    with mock.patch.object(triton_settings, "architecture", return_value=card):
        assert rule.implementation_for(torch.ones(1, width), dtype, trained=trained) == chosen


@pytest.mark.parametrize(("card", "calls"), [("sm_80", 1), ("sm_100", 0)])
def test_a_training_step_of_a_block_takes_what_the_rule_chooses(monkeypatch, card, calls):
    seen = []
    up = launch.UP
    monkeypatch.setattr(launch, "UP", lambda *given: seen.append(given) or up(*given))
    layer = MLP(ModelConfig(7, 8, 1, 1, 16, True))
    with (
        dispatch.using(mlp="rule"),
        mock.patch.object(triton_settings, "architecture", return_value=card),
        mock.patch.object(triton_settings, "interpreting", return_value=True),
        torch.autocast("cpu", dtype=torch.float16),
    ):
        layer(torch.ones(2, 8, 16)).sum().backward()
        with torch.no_grad():
            layer(torch.ones(2, 8, 16))
    assert len(seen) == calls
    assert layer.c_fc.weight.grad.shape == (64, 16)
