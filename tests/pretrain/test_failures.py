"""Failures in runs of several processes, caused on purpose: the job ends in time with the failed process and
the cause, keeps its last good checkpoint, and resumes to the curve of an uninterrupted run."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.run import pretrain
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.processes import Processes
from tests.pretrain.runs import metrics, write_config
from tests.pretrain.torchrun_jobs import finish, same_curve, torchrun, wait_for_steps, workers

# The longest time for a job to end: the others' report (3 s) and the store's answer (5 s), on a busy machine.
END_S = 60
# The step of the failure: the checkpoint of step 4 is complete by then, because that of step 8 has waited for
# it.
FAULT = 9


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """The uninterrupted run, in one process."""
    folder = tmp_path_factory.mktemp("straight")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pretrain(load_config(write_config(folder)), folder / "run")
    torch.set_num_threads(threads)
    return folder / "run"


def faulty(fault: str, rank: int, folder: Path, *arguments: str, **settings) -> subprocess.Popen:
    """The run of `straight` in two processes, one of which fails at a step; see faulty_rank.py."""
    return torchrun(
        2, "pretrain", "--config", str(write_config(folder)), "--out", str(folder / "run"), *arguments,
        module=("tests.pretrain.faulty_rank", fault, str(rank), str(FAULT)), **settings,
    )  # fmt: skip


def goes_on(folder: Path, straight: Path) -> None:
    """Resumed and finished, the run has the loss curve of the uninterrupted one."""
    process = torchrun(
        2, "pretrain", "--config", str(write_config(folder)), "--out", str(folder / "run"), "--resume"
    )  # fmt: skip
    output = finish(process)
    assert process.returncode == 0, output
    assert "resuming from" in output
    assert [record["step"] for record in metrics(folder / "run")] == list(range(12))
    same_curve(folder / "run", straight)


def sharded(how: str) -> tuple[str, str]:
    return "--set", f"parallel.sharding={how}"


def check_kept(run: Path) -> None:
    assert checkpoint.newest(run).step in (4, 8)
    assert not checkpoint.damaged(run)


@pytest.mark.slow
def test_torchrun_starts_a_killed_job_again_and_the_curve_is_the_same(tmp_path, straight):
    process = faulty("kill", 1, tmp_path, "--resume", options=("--standalone", "--max-restarts=1"))
    output = finish(process)
    assert process.returncode == 0, output
    assert "process 0 of 2: an exchange failed" in output, output
    assert "gone, or silent for 600 s: process 1" in output, output
    assert "failed (exitcode: -9) local_rank: 1" in output, output
    assert "resuming from" in output, output
    assert [record["step"] for record in metrics(tmp_path / "run")] == list(range(12))
    same_curve(tmp_path / "run", straight)


@pytest.mark.slow
def test_so_it_does_where_the_model_is_sharded(tmp_path, straight):
    options = ("--standalone", "--max-restarts=1")
    process = faulty("kill", 0, tmp_path, "--resume", *sharded("fsdp"), options=options)
    output = finish(process)
    assert process.returncode == 0, output
    assert "resuming from" in output, output
    same_curve(tmp_path / "run", straight)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "how"), [(0, "ddp"), (1, "ddp"), (1, "fsdp")])
def test_a_killed_process_is_named_at_once_by_torchrun_and_by_the_one_that_is_left(
    tmp_path, straight, rank, how
):
    process = faulty("kill", rank, tmp_path, *sharded(how))
    wait_for_steps(tmp_path / "run", FAULT - 1, process)
    began = time.monotonic()
    output = finish(process)
    assert time.monotonic() - began < END_S
    assert process.returncode == 1
    assert f"failed (exitcode: -9) local_rank: {rank}" in output, output
    assert f"process {1 - rank} of 2: an exchange failed" in output, output
    assert f"gone, or silent for 600 s: process {rank}" in output, output
    check_kept(tmp_path / "run")
    goes_on(tmp_path, straight)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "how"), [(0, "ddp"), (1, "fsdp")])
def test_a_process_that_hangs_is_named_after_the_time_out(tmp_path, straight, rank, how):
    process = faulty("stop", rank, tmp_path, "--set", "run.timeout_s=8", *sharded(how))
    wait_for_steps(tmp_path / "run", FAULT - 1, process)
    began = time.monotonic()
    output = finish(process)
    # 8 s, 3 s for the reports of the others, and torchrun waits 30 s for the hung process after SIGTERM
    assert time.monotonic() - began < 8 + 3 + 30 + 20
    assert process.returncode == 1
    assert f"gone, or silent for 8 s: process {rank}" in output, output
    check_kept(tmp_path / "run")
    goes_on(tmp_path, straight)


@pytest.mark.slow
def test_sigterm_to_all_ends_the_job_with_a_checkpoint(tmp_path, straight):
    config = write_config(tmp_path)
    process = torchrun(2, "pretrain", "--config", str(config), "--out", str(tmp_path / "run"))
    wait_for_steps(tmp_path / "run", 3, process)
    # To every process, as Slurm does; then torchrun sends another.
    for pid in (*workers(process), process.pid):
        os.kill(pid, signal.SIGTERM)
    output = finish(process)
    stopped_at = checkpoint.newest(tmp_path / "run").step
    assert f"stopped by SIGTERM after step {stopped_at} of 12" in output, output
    assert 3 <= stopped_at < 12
    goes_on(tmp_path, straight)


def mount_refused() -> str:
    """The reason why this user cannot mount a file system; empty if it is possible."""
    if shutil.which("unshare") is None:
        return "no unshare command"
    tried = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr.strip()


@pytest.mark.slow
@pytest.mark.skipif(bool(mount_refused()), reason=f"no file system of one's own: {mount_refused()}")
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_full_disk_ends_the_job_and_leaves_the_checkpoints_before(tmp_path, straight, how):
    """A file system of 2 MB, too small for six checkpoints."""
    disk, run = tmp_path / "disk", tmp_path / "run"
    disk.mkdir()
    script = (
        f'mount -t tmpfs -o size=2000k none {disk} && "$@"; code=$?; '
        f"df --output=avail {disk}; cp -a {disk}/run {run}; exit $code"
    )
    config = str(write_config(tmp_path))
    process = torchrun(
        2, "pretrain", "--config", config, "--out", str(disk / "run"),
        "--set", "checkpoint.every_steps=2", "--set", "checkpoint.keep=9", "--set", "run.timeout_s=20", *sharded(how),
        wrapper=("unshare", "-rm", "sh", "-c", script, "sh"),
    )  # fmt: skip
    output = finish(process)
    assert process.returncode == 1, output
    assert "No space left on device" in output, output
    kept = checkpoint.complete(run)
    assert [found.step for found in kept][:2] == [2, 4]
    assert kept[-1].step < 12
    assert not checkpoint.damaged(run)
    goes_on(tmp_path, straight)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_loss_that_is_no_number_stops_all_and_names_the_windows_of_that_process(tmp_path, straight, how):
    process = faulty("nan", 1, tmp_path, *sharded(how))
    wait_for_steps(tmp_path / "run", FAULT - 1, process)
    began = time.monotonic()
    output = finish(process)
    assert time.monotonic() - began < END_S
    assert process.returncode == 1
    assert f"step {FAULT}, process 1 of 2: the loss is nan" in output, output
    assert f"step {FAULT}, process 0 of 2: stopped because of process 1" in output, output
    config = load_config(write_config(tmp_path))
    job = PretrainingRun(config, Processes())
    lines = job.mix.describe(job.batch_at(FAULT, 0).windows, job.maker.length_bp)
    for line in lines[4:]:  # of the step's eight samples process 1 has the last four
        assert line in output, output
    for line in lines[:4]:
        assert line not in output, output
    check_kept(tmp_path / "run")
    goes_on(tmp_path, straight)
