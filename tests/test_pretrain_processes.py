"""Several processes train as one does: same losses, resuming on another number of them, and what ends a job."""

import json
import signal

import pytest
import torch

from dnagpt_fast.pretrain import pretrain
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training_config import load_config
from tests.pretraining_runs import metrics, write_config
from tests.torchrun_jobs import finish, same_curve, torchrun, wait_for_steps


@pytest.fixture
def straight(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pretrain(load_config(write_config(tmp_path)), tmp_path / "straight")
    torch.set_num_threads(threads)
    return tmp_path / "straight"


def test_two_processes_are_one(tmp_path, straight):
    run = tmp_path / "two"
    process = torchrun(2, "pretrain", "--config", str(tmp_path / "settings.toml"), "--out", str(run))
    output = finish(process)
    assert process.returncode == 0, output
    same_curve(run, straight)
    reports = [json.loads((folder / "validation.json").read_text()) for folder in (run, straight)]
    assert reports[0].keys() == reports[1].keys()
    for name, value in reports[0].items():
        assert value == pytest.approx(reports[1][name], rel=1e-3, abs=0.02), name


@pytest.mark.slow
def test_two_then_four_then_one_process(tmp_path, straight):
    """Stopped by SIGTERM on two, resumed and stopped on four, finished on one: no sample lost or doubled."""
    run, config = tmp_path / "run", str(tmp_path / "settings.toml")
    for world_size, steps in ((2, 3), (4, 7)):
        process = torchrun(world_size, "pretrain", "--config", config, "--out", str(run), "--resume")
        wait_for_steps(run, steps, process)
        process.send_signal(signal.SIGTERM)
        output = finish(process)
        assert "stopped by SIGTERM" in output, output
        assert checkpoint.newest(run).step < 12
    pretrain(load_config(config), run, resume=True)
    assert [record["step"] for record in metrics(run)] == list(range(12))
    same_curve(run, straight)
