"""Rates, stage shares and peak memory: of the clock alone, then in a real run."""

import json
import resource
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import dnagpt_fast
from dnagpt_fast.planning.flops import step_flops
from dnagpt_fast.pretrain.run import pretrain
from dnagpt_fast.pretrain.settings import PretrainConfig
from dnagpt_fast.training import figures
from dnagpt_fast.training.figures import STAGES, StageClock, StepCost, peak_memory_gib
from dnagpt_fast.training.log import read_metrics
from dnagpt_fast.training.settings import from_tree

CPU = torch.device("cpu")
GENOME = next((Path(dnagpt_fast.__file__).parent / "data").glob("*.2bit"))


class Ticks:
    """A clock that is moved by hand."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def ticks(monkeypatch):
    ticks = Ticks()
    monkeypatch.setattr(figures, "time", ticks)
    return ticks


def test_stages_add_up_over_micro_batches(ticks):
    clock = StageClock(CPU)
    clock.begin(0)
    for _ in range(2):
        for stage, seconds in (("data", 1), ("forward", 2), ("loss", 3), ("backward", 4)):
            clock.mark(stage)
            ticks.now += seconds
    clock.mark("optimizer")
    ticks.now += 20
    clock.end()
    ticks.now += 1000
    shares = clock.shares()
    assert list(shares) == [f"share_{stage}" for stage in STAGES]
    assert shares == pytest.approx(
        {
            "share_data": 0.05,
            "share_forward": 0.1,
            "share_loss": 0.15,
            "share_backward": 0.2,
            "share_communication": 0,
            "share_optimizer": 0.5,
        }
    )
    assert clock.shares() == {}


def test_what_follows_the_last_gradient_is_communication(ticks):
    weight = nn.Parameter(torch.ones(2))
    clock = StageClock(CPU)
    clock.watch_gradients([weight])
    clock.begin(0)
    clock.mark("backward")
    ticks.now = 3.0
    weight.sum().backward()
    ticks.now = 4.0  # buckets under way
    clock.mark_reduced()
    clock.mark("optimizer")
    ticks.now = 10.0
    clock.end()
    shares = clock.shares()
    assert shares["share_backward"] == pytest.approx(0.3)
    assert shares["share_communication"] == pytest.approx(0.1)
    assert shares["share_optimizer"] == pytest.approx(0.6)


class Slow(torch.autograd.Function):
    """x -> x; forward and backward take so many ticks."""

    @staticmethod
    def forward(ctx, x, ticks, forward, backward):
        ctx.later = ticks, backward
        ticks.now += forward
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ticks, backward = ctx.later
        ticks.now += backward
        return gradient, None, None, None


class Block(nn.Module):
    def __init__(self, ticks):
        super().__init__()
        self.ticks = ticks

    def forward(self, x):
        return Slow.apply(x, self.ticks, 10, 20)


def test_gathering_and_dropping_shards_is_communication(ticks):
    """Stand-ins for fully_shard's hooks: a gather before each pass of a block (1 tick forward, 2 backward), and 4 ticks
    of summing its gradients."""

    def gather(_):
        ticks.now += 2

    model = nn.Sequential(Block(ticks), Block(ticks))
    for block in model:
        block.register_forward_pre_hook(lambda _, args: Slow.apply(args[0], ticks, 1, 4), prepend=True)
        block.register_forward_hook(lambda _, __, output: output.register_hook(gather) and None)
    clock = StageClock(CPU)
    clock.watch_shards(model, list(model))
    clock.begin(0)
    clock.mark("forward")
    x = torch.ones(1, requires_grad=True) * 1
    ticks.now += 100  # embeddings and the like
    loss = model(x)
    clock.mark("backward")
    loss.sum().backward()
    ticks.now += 8  # what the last sums take after all
    clock.mark_reduced()
    clock.mark("optimizer")
    ticks.now += 1
    clock.end()
    shares, whole = clock.shares(), 100 + 2 * (10 + 1 + 20 + 2 + 4) + 8 + 1
    for stage, spent in (("forward", 120), ("backward", 40), ("communication", 2 * 7 + 8), ("optimizer", 1)):
        assert shares[f"share_{stage}"] == pytest.approx(spent / whole), stage


def test_a_stage_that_begins_inside_a_model(ticks):
    inner, outer = nn.Linear(2, 2), nn.Linear(2, 2)
    clock = StageClock(CPU)
    clock.mark_before(outer, "loss")
    outer.register_forward_pre_hook(lambda *_: setattr(ticks, "now", ticks.now + 1))
    outer.register_forward_hook(lambda *_: setattr(ticks, "now", ticks.now + 3))
    clock.begin(0)
    clock.mark("forward")
    ticks.now += 1
    outer(inner(torch.ones(1, 2)))
    clock.end()
    shares = clock.shares()
    assert shares["share_forward"] == pytest.approx(0.2)
    assert shares["share_loss"] == pytest.approx(0.8)
    outer(torch.ones(1, 2))  # outside a step nothing is marked
    assert clock.shares() == {}


def test_only_every_nth_step_is_measured(ticks):
    clock = StageClock(CPU, every_steps=3)
    measured = []
    for step in range(7):
        clock.begin(step)
        clock.mark("forward")
        ticks.now += 1
        clock.end()
        if clock.shares():
            measured.append(step)
    assert measured == [0, 3, 6]


def test_rates_of_a_known_step():
    cost = StepCost(tokens=1000, bp=6000, flops=5_000_000, peak_flops=10_000_000.0, processes=2)
    assert cost.rates(0.5) == {"tokens_per_s": 2000, "bp_per_s": 12000, "mfu": 0.5}


def test_peak_memory_is_at_least_the_current_memory():
    held = torch.ones(64, 2**20)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    now = pages * resource.getpagesize() / 2**30
    assert held.nbytes / 2**30 < now <= peak_memory_gib(CPU) + 0.01 < now + 8


def tiny_run(**run) -> PretrainConfig:
    tree = {
        "model": {"max_len": 32, "num_layers": 2, "num_heads": 2, "embedding_dim": 16},
        "vocabulary": {"k": 3},
        "data": {"genomes": [{"path": str(GENOME)}]},
        "schedule": {"warmup_steps": 1},
        "run": {"steps": 3, "batch_size": 4, "micro_batch_size": 2, "device": "cpu", **run},
        "validation": {"max_windows": 4},
    }
    return from_tree(PretrainConfig, tree)


def test_a_run_writes_its_figures_and_tensorboard_shows_the_same(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pretrain(tiny_run(tensorboard=True), tmp_path / "run")
    records = read_metrics(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    model, peak = record["model"], record["peak_flops"]["per_process"]
    assert record["peak_flops"]["source"] == "measured matrix product, cpu fp32"
    shape = dnagpt_fast.ModelConfig.from_dict(model)
    assert record["step_flops"] == step_flops(shape, 4, 32).total
    for line in records:
        shares = [line[f"share_{stage}"] for stage in STAGES]
        assert sum(shares) == pytest.approx(1)
        assert all(share > 0 for stage, share in zip(STAGES, shares, strict=True))
        assert line["mfu"] == pytest.approx(record["step_flops"] / line["seconds"] / peak)
        assert line["tokens_per_s"] == pytest.approx(4 * 32 / line["seconds"])
        assert line["bp_per_s"] == pytest.approx(4 * 27 * 3 / line["seconds"])
        assert 0.05 < line["peak_memory_gib"] < 64
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for name in ("loss", "mfu", "share_backward"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in records]


def test_without_tensorboard_the_error_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RuntimeError, match=r"pip install 'dnagpt-fast\[log\]'"):
        pretrain(tiny_run(tensorboard=True), tmp_path / "run")
