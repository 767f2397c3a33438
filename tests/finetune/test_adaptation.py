"""Which weights are trained and which are frozen; the kept weights include the low-rank additions."""

import pytest
import torch

from dnagpt_fast.finetune.adaptation import Adaptation
from dnagpt_fast.finetune.settings import ConfigError, TuningSettings
from dnagpt_fast.model.dnagpt import DNAGPT


def model():
    torch.manual_seed(3)
    return DNAGPT(64, 32, 3, 2, 16)


def moving(adapted):
    return {name for name, p in adapted.model.named_parameters() if p.requires_grad}


def heads(names):
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("task", "numbers", "wanted"),
    [
        ("classification", 0, {"mlm_head"}),
        ("generation", 0, {"mlm_head"}),
        ("regression", 0, {"num_regression"}),
        ("regression", 8, {"num_regression", "number_embedding"}),
    ],
)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_only_the_heads_of_the_task_move(task, numbers, wanted, method):
    adapted = Adaptation(model(), task, TuningSettings(method=method), numbers=numbers)
    assert heads(moving(adapted)) == wanted | {"transformer"}


def test_freezing():
    names = moving(
        Adaptation(model(), "classification", TuningSettings(freeze_embeddings=True, freeze_blocks=2))
    )
    assert not {
        n
        for n in names
        if n.startswith(("transformer.wte", "transformer.wpe", "transformer.h.0", "transformer.h.1"))
    }
    assert any(n.startswith("transformer.h.2") for n in names)
    assert "transformer.ln_f.weight" in names
    with pytest.raises(ConfigError, match=r"tuning.freeze_blocks = 4: the model has 3"):
        Adaptation(model(), "classification", TuningSettings(freeze_blocks=4))


def test_lora_moves_its_additions_only_and_starts_where_the_model_was():
    tokens = torch.arange(20).reshape(2, 10)
    plain = model()
    adapted = Adaptation(
        model(), "classification", TuningSettings(method="lora", lora_rank=2, freeze_blocks=1)
    )
    in_transformer = {n for n in moving(adapted) if n.startswith("transformer")}
    assert in_transformer
    assert all("lora_" in n for n in in_transformer)
    assert not any(".h.0." in n for n in in_transformer)
    assert torch.equal(adapted.model(tokens), plain(tokens))


def test_the_weights_that_are_kept_are_those_that_were_used():
    tokens = torch.arange(20).reshape(2, 10)
    adapted = Adaptation(model(), "classification", TuningSettings(method="lora", lora_rank=2))
    optimizer = torch.optim.SGD([p for p in adapted.model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        adapted.model(tokens).square().mean().backward()
        optimizer.step()
    used = adapted.model(tokens)
    kept = model()
    start = kept(tokens)
    kept.load_state_dict(adapted.state(), strict=True)
    assert (used - start).abs().max() > 1e-3
    assert torch.allclose(kept(tokens), used, atol=1e-5)
    assert torch.equal(adapted.model(tokens), used)  # taking them changed nothing


def test_an_unknown_target():
    with pytest.raises(ConfigError, match="wanted some of c_attn, c_proj, c_fc"):
        Adaptation(model(), "classification", TuningSettings(method="lora", lora_targets=("q_proj",)))
