"""The FLOP count against torch's count while the model runs, product by product."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dnagpt_fast.batch import ROW_NEXT_TOKEN, ROW_ORDER, PretrainBatch, Windows
from dnagpt_fast.model.config import PRESETS, ModelConfig, parameter_count
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops import dispatch
from dnagpt_fast.planning.flops import Flops, forward_flops, step_flops

# Sizes are distinct primes or their products, so that a swapped factor changes the count.
SHAPES = [
    ModelConfig(101, max_len=31, num_layers=2, num_heads=3, embedding_dim=33),
    ModelConfig(211, max_len=17, num_layers=3, num_heads=2, embedding_dim=26, bias=True),
]


def batch_of(samples: int, tokens: int, vocab: int) -> PretrainBatch:
    kinds = torch.full((samples, tokens), ROW_NEXT_TOKEN, dtype=torch.uint8)
    kinds[:, -1] = ROW_ORDER
    nowhere = torch.zeros(samples, dtype=torch.int64)
    return PretrainBatch(
        token_ids=torch.randint(vocab, (samples, tokens)),
        targets=torch.randint(vocab, (samples, tokens)),
        row_kind=kinds,
        gc_position=tokens - 3,
        gc_target=torch.rand(samples),
        gc_mask=torch.ones(samples, dtype=torch.bool),
        windows=Windows(nowhere, nowhere, nowhere, nowhere),
    )


@pytest.mark.parametrize("config", SHAPES, ids=("no bias", "bias"))
@pytest.mark.parametrize("samples", [1, 5])
def test_forward_and_step_against_torch(config, samples):
    tokens = config.max_len - 2
    model, batch = DNAGPT.from_config(config), batch_of(samples, tokens, config.vocab_size)
    # The reference implementations consist of plain products, all of which torch counts.
    with dispatch.using(attention="reference", combined_loss="reference", linear="torch"):
        with FlopCounterMode(display=False) as forward, torch.no_grad():
            model.pretraining_loss(batch)
        with FlopCounterMode(display=False) as step:
            model.pretraining_loss(batch).total.backward()
    wanted = forward_flops(config, samples, tokens, regression_rows=samples, causal=False)
    assert wanted.total == forward.get_total_flops()
    assert step_flops(config, samples, tokens, causal=False).total == step.get_total_flops()


def test_each_part_against_torch():
    config, samples, tokens = SHAPES[0], 3, 13
    model, hidden = DNAGPT.from_config(config), torch.randn(3, 13, 33)

    def counted(run) -> int:
        with (
            FlopCounterMode(display=False) as counter,
            dispatch.using(attention="reference", linear="torch"),
            torch.no_grad(),
        ):
            run()
        return counter.get_total_flops()

    wanted = forward_flops(config, samples, tokens, regression_rows=samples, causal=False)
    ids = torch.randint(config.vocab_size, (samples, tokens))
    assert counted(lambda: model.hidden_states(ids)) == wanted.blocks + wanted.attention
    assert counted(lambda: model.mlm_head(hidden)) == wanted.token_head
    assert counted(lambda: model.num_regression(hidden[:, 5])) == wanted.regression


def test_causal_attention_counts_the_pairs_that_are_seen():
    config, tokens = SHAPES[0], 7
    pairs = sum(1 for query in range(tokens) for key in range(tokens) if key <= query)
    full = forward_flops(config, 2, tokens, causal=False)
    causal = forward_flops(config, 2, tokens)
    assert causal.attention * tokens**2 == full.attention * pairs
    assert dataclasses.replace(causal, attention=0) == dataclasses.replace(full, attention=0)


def test_shares_of_the_published_step():
    # 0.1B, 512 tokens: blocks 81 %, head 15 %, attention 4.5 % of a step; at 4,096 tokens attention is over a quarter.
    short = step_flops(PRESETS["dna_gpt0.1b_m"], 4, 512)
    assert short.blocks / short.total == pytest.approx(0.81, abs=0.01)
    assert short.attention / short.total == pytest.approx(0.045, abs=0.001)
    long = step_flops(PRESETS["dna_gpt0.1b_h"], 1, 4096)
    assert 0.25 < long.attention / long.total < 0.30
    assert short.times(3) == Flops(*(3 * part for part in dataclasses.astuple(short)))


@pytest.mark.parametrize("config", [*SHAPES, PRESETS["dna_gpt0.1b_m"], PRESETS["dna_gpt3b_m"]])
def test_parameter_count(config):
    with torch.device("meta"):
        model = DNAGPT.from_config(config)
    assert parameter_count(config) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0, "tokens": 4}, "0 samples"),
        ({"samples": 1, "tokens": 32}, "1..31"),
        ({"samples": 1, "tokens": 4, "loss_rows": 5}, "5 loss"),
        ({"samples": 1, "tokens": 4, "regression_rows": -1}, "-1 regression"),
    ],
)
def test_counts_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        step_flops(SHAPES[0], **arguments)
