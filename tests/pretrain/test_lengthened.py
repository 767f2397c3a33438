"""Runs whose length is changed after a stop, with Muon and the occurring vocabulary: they equal, to the last
bit, a run with this length from the start."""

import os
import signal

import pytest
import torch

from dnagpt_fast.pretrain.run import pretrain
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.log import MetricsLog
from dnagpt_fast.training.settings import ConfigError
from tests.pretrain.runs import metrics, write_config

LEARNING = (
    "optimizer.kind=muon", "loss.vocabulary=occurring", "loss.reversed_next_token=false", "schedule.kind=wsd",
    "schedule.warmup_steps=2", "validation.every_steps=4",
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_level_run_that_is_cut_short_is_the_run_that_knew_its_end(tmp_path):
    def settings(*overrides):
        return load_config(write_config(tmp_path), [*LEARNING, *overrides])

    short = ("run.steps=10", "schedule.decay_steps=4")
    pretrain(settings(*short), tmp_path / "straight")
    run, write = tmp_path / "open", MetricsLog.write

    def write_and_stop(log, line):
        write(log, line)
        if line["step"] == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "write", write_and_stop)
        stopped = pretrain(settings("run.steps=100", "schedule.decay_steps=10"), run)
    assert (stopped.steps, stopped.stopped_by) == (6, "SIGTERM")
    pretrain(settings(*short), run, resume=True)
    assert metrics(run) == metrics(tmp_path / "straight")
    one, other = (checkpoint.newest(folder).weights() for folder in (run, tmp_path / "straight"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    held_out = [line["step"] for line in metrics(run) if "held_out_nats_per_bp" in line]
    assert held_out == [3, 7]
    with pytest.raises(ConfigError, match="its decay starts at step 6"):
        pretrain(settings("run.steps=8", "schedule.decay_steps=1"), run, resume=True)


def test_a_finished_run_goes_on_with_a_new_warmup(tmp_path):
    config = load_config(write_config(tmp_path), ["run.steps=6"])
    pretrain(config, tmp_path / "run")
    longer = load_config(write_config(tmp_path), ["run.steps=12"])
    outcome = pretrain(longer, tmp_path / "run", resume=True)
    assert outcome.steps == 12
    rates = [line["lr"] for line in metrics(tmp_path / "run")]
    assert rates[5] == 0
    assert rates[6] == pytest.approx(1e-2 / 5)
    assert rates[11] == 0
