"""The planner's arithmetic, and the command `plan`."""

import math

import pytest
from typer.testing import CliRunner

from dnagpt_fast.cli.app import app
from dnagpt_fast.model.config import parameter_count
from dnagpt_fast.planning.flops import step_flops
from dnagpt_fast.planning.plan import Request, make_plan


def test_steps_hours_and_disk_by_hand():
    request = Request(
        "dna_gpt0.1b_m", gpu="h100", gpus=4, corpus_bp=3.1e9, epochs=15, batch_size=256, micro_batch=32
    )
    plan = make_plan(request)
    assert (plan.accumulation, plan.sharded, plan.fits) == (2, False, True)
    assert plan.steps == math.ceil(15 * 3.1e9 / (256 * 507 * 6))
    seconds = step_flops(plan.config, 256, 512).total / (0.4 * 4 * 989e12)
    assert plan.hours == pytest.approx(plan.steps * seconds / 3600)
    assert plan.tokens_per_s == pytest.approx(256 * 512 / seconds)
    weights = 4 * parameter_count(plan.config)
    assert (
        2.9 * weights < plan.checkpoint_bytes < 3 * weights
    )  # weights and two moments, the latter of what is trained
    assert plan.disk_bytes == 4 * plan.checkpoint_bytes


def test_the_largest_micro_batch_that_fits_is_used():
    plan = make_plan(Request("dna_gpt3b_m", gpu="h100", gpus=2))
    assert plan.fits
    twice = make_plan(
        Request("dna_gpt3b_m", gpu="h100", gpus=2, micro_batch=2 * plan.micro_batch, sharded=False)
    )
    assert not twice.fits
    assert twice.remedies()
    assert make_plan(Request("dna_gpt0.1b_m", batch_size=24)).micro_batch == 8  # divides a GPU's share


def test_sharding_is_used_if_a_replica_does_not_fit():
    plan = make_plan(Request("dna_gpt3b_m", gpu="a100-40g", gpus=8))
    assert plan.sharded
    assert plan.fits
    replica = make_plan(Request("dna_gpt3b_m", gpu="a100-40g", gpus=8, sharded=False))
    assert not replica.fits
    assert any("--sharded" in line for line in replica.remedies())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "dna_gpt7b"}, "dna_gpt7b"),
        ({"gpu": "tpu"}, "unknown GPU 'tpu'"),
        ({"gpu": "v100"}, "v100 trains in fp32"),
        ({"gpus": 0}, "gpus = 0"),
        ({"corpus_bp": 0.0}, "corpus_bp"),
        ({"utilisation": 1.5}, "utilisation"),
        ({"gpus": 3, "batch_size": 8}, "shared equally"),
        ({"batch_size": 8, "micro_batch": 3}, "no multiple"),
        ({"sharded": True}, "--sharded needs several GPUs"),
    ],
)
def test_an_impossible_request_is_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        make_plan(Request(**{"model": "dna_gpt0.1b_m", **settings}))


def test_the_command_prints_the_plan_and_what_does_not_fit():
    good = CliRunner().invoke(
        app, ["plan", "--model", "dna_gpt0.1b_m", "--corpus-bp", "3.1e9", "--gpus", "8"]
    )
    assert good.exit_code == 0, good.output
    for label in ("weights", "gradients", "optimizer", "activations", "loss head", "steps", "time", "disk"):
        assert label in good.output
    bad = CliRunner().invoke(
        app, ["plan", "--model", "dna_gpt3b_m", "--corpus-bp", "2e11", "--gpu", "rtx4090"]
    )
    assert bad.exit_code == 1
    assert "does not fit" in bad.output
    assert "--checkpointing" in bad.output
