"""Several processes train as one does: same losses, resuming on another number of them, and what ends a job."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dnagpt_fast.pretrain import pretrain
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training_config import load_config
from tests.pretraining_runs import ROOT, metrics, write_config


def torchrun(world_size: int, *arguments: str) -> subprocess.Popen:
    """`dnagpt-fast ARGUMENTS` under torchrun with gloo, one thread a process; its own session, to be killed whole."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world_size}",
            "-m", "dnagpt_fast.cli", *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    try:
        return process.communicate(timeout=180)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def workers(process: subprocess.Popen) -> list[int]:
    """Process ids of the ranks, in the order of rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks = [entry for entry in environment if entry.startswith(b"RANK=")]
        if ranks:
            found[int(ranks[0].removeprefix(b"RANK="))] = int(child)
    return [found[rank] for rank in sorted(found)]


def wait_for_steps(run: Path, steps: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while (
        not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < steps
    ):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


@pytest.fixture
def straight(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pretrain(load_config(write_config(tmp_path)), tmp_path / "straight")
    torch.set_num_threads(threads)
    return tmp_path / "straight"


def same_curve(run: Path, other: Path) -> None:
    for one, two in zip(metrics(run), metrics(other), strict=True):
        # The same samples and the same sums in another order: fp32 rounding, carried through 12 steps of AdamW.
        assert one["loss"] == pytest.approx(two["loss"], rel=2e-4), one["step"]


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
        assert "stopped by SIGTERM" in " ".join(output.split()), output
        assert checkpoint.newest(run).step < 12
    pretrain(load_config(config), run, resume=True)
    assert [record["step"] for record in metrics(run)] == list(range(12))
    same_curve(run, straight)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_hangs_is_named_and_the_job_ends(tmp_path, straight, how):
    run, config = tmp_path / "run", str(tmp_path / "settings.toml")
    timeout_s = 8
    more = ("--set", f"run.timeout_s={timeout_s}", "--set", "run.steps=100000")
    process = torchrun(2, "pretrain", "--config", config, "--out", str(run), *more)
    wait_for_steps(run, 6, process)
    os.kill(workers(process)[1], how)
    began = time.monotonic()
    output = finish(process)
    # torchrun gives a hung process 30 s to react to SIGTERM before it kills it.
    assert time.monotonic() - began < timeout_s + 45
    assert process.returncode != 0
    if how == signal.SIGSTOP:
        assert "gone, or silent for 8 s: process 1" in " ".join(output.split()), output
    else:
        assert "exitcode  : -9" in output or "process 1" in output, output
    assert checkpoint.newest(run).step >= 4
