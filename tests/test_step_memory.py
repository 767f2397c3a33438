"""The memory model: what moves with what."""

import pytest
import torch

from dnagpt_fast.config import PRESETS, ModelConfig
from dnagpt_fast.model import DNAGPT
from dnagpt_fast.step_memory import StepMemory, step_memory, trained_count

SMALL = ModelConfig(1000, max_len=64, num_layers=2, num_heads=4, embedding_dim=32, bias=True)


def test_trained_parameters_are_all_but_the_number_embedding():
    for config in (PRESETS["dna_gpt0.1b_m"], SMALL):
        with torch.device("meta"):
            model = DNAGPT.from_config(config)
        model.number_embedding.requires_grad_(False)
        assert trained_count(config) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_sharding_checkpointing_and_samples_move_what_they_should():
    config = PRESETS["dna_gpt3b_m"]

    def planned(samples=4, **settings) -> StepMemory:
        return step_memory(config, samples, 512, device="cuda", precision="bf16", **settings)

    whole, sharded = planned(), planned(shards=8)
    assert sharded.optimizer == whole.optimizer // 8
    assert sharded.total < whole.total
    # enough samples for the activations to be the peak
    many = planned(32)
    assert planned(64).activations == 2 * many.activations
    assert planned(64).optimizer == many.optimizer
    assert planned(32, checkpointing=True).activations < many.activations / 5


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"samples": 0}, "0 samples"),
        ({"device": "tpu"}, "tpu"),
        ({"precision": "fp8"}, "fp8"),
        ({"shards": 0}, "0 shards"),
    ],
)
def test_what_does_not_fit_is_told(settings, told):
    with pytest.raises(ValueError, match=told):
        step_memory(**{"config": SMALL, "samples": 1, "tokens": 8, **settings})
