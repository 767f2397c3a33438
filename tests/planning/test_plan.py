"""The planner's arithmetic, and the command `plan`."""

import json
import math
import os
import re

import pytest
import torch
from typer.testing import CliRunner

from dnagpt_fast.cli.command_line import command_line
from dnagpt_fast.model.config import parameter_count
from dnagpt_fast.planning import accelerators
from dnagpt_fast.planning.flops import step_flops
from dnagpt_fast.planning.plan import Request, make_plan, readable_time


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
        ({"gpu": "v100", "precision": "bf16"}, "v100 trains in fp32"),
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


OWN = """
[model]
max_len = 64
num_layers = 2
num_heads = 2
embedding_dim = 32
[vocabulary]
k = 3
[data]
n_kmers = 50
[run]
steps = 90
batch_size = 12
micro_batch_size = 4
[checkpoint]
keep = 5
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.toml").write_text(OWN)
    return tmp_path / "own.toml"


def invoke(*arguments):
    return CliRunner().invoke(command_line(), ["plan", *map(str, arguments)])


def test_the_plan_of_own_settings(own):
    said = invoke("--config", own, "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert (found["steps"], found["batch_size"], found["micro_batch"]) == (90, 12, 4)
    assert found["bases"] == 90 * 12 * 50 * 3
    assert found["disk_bytes"] == 6 * found["checkpoint_bytes"]
    assert found["precision"] == "bf16"
    # tokens of a sample: 50 k-mers and the template's five
    assert found["hours"] * 3600 * found["tokens_per_s"] == pytest.approx(90 * 12 * 55)
    assert json.loads(invoke("--config", own, "--set", "run.steps=9", "--json").stdout)["steps"] == 9
    assert re.search(r"^time .* seconds$", invoke("--config", own).stdout, re.MULTILINE)


def test_the_plan_for_this_machine(own, monkeypatch):
    monkeypatch.setattr(accelerators, "measured_peak", lambda device, precision: 5e11)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cpu", "this"):
        found = json.loads(invoke("--config", own, "--gpu", name, "--json").stdout)
        assert (found["device"], found["precision"], found["fits"]) == ("cpu", "fp32", True)
        assert found["memory_bytes"]["usable"] < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with pytest.raises(ValueError, match="processor of this machine"):
        make_plan(Request("dna_gpt0.1b_m", gpu="cpu", gpus=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--config"),
        (("--model", "dna_gpt0.1b_m"), "base pairs of the genomes"),
        (("--model", "dna_gpt0.1b_m", "--corpus-bp", 1e6, "--set", "run.steps=2"), "not both"),
        (("--set", "run.steps=2", "--batch-size", 4), "change it by --set"),
    ],
)
def test_what_the_plan_needs(arguments, message):
    said = invoke(*arguments)
    assert said.exit_code == 2
    assert message in " ".join(said.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("hours", "text"),
    [(300.0, "300.0 hours"), (1.5, "90.0 minutes"), (0.05, "3.0 minutes"), (0.005, "18.0 seconds")],
)
def test_times_have_a_unit_that_fits(hours, text):
    assert readable_time(hours) == text


def test_the_command_prints_the_plan_and_what_does_not_fit():
    good = CliRunner().invoke(
        command_line(), ["plan", "--model", "dna_gpt0.1b_m", "--corpus-bp", "3.1e9", "--gpus", "8"]
    )
    assert good.exit_code == 0, good.output
    for label in ("weights", "gradients", "optimizer", "activations", "loss head", "steps", "time", "disk"):
        assert label in good.output
    bad = CliRunner().invoke(
        command_line(), ["plan", "--model", "dna_gpt3b_m", "--corpus-bp", "2e11", "--gpu", "rtx4090"]
    )
    assert bad.exit_code == 1
    assert "\ntime" not in bad.output
    assert "does not fit" in bad.output
    assert "--checkpointing" in bad.output
