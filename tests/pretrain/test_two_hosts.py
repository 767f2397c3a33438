"""Two hosts with separate addresses, simulated by network namespaces: they train together, and one notices
that the other is lost. Needs root for `ip netns`."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dnagpt_fast.pretrain.run import pretrain
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.training import checkpoint
from tests.pretrain.runs import metrics, write_config
from tests.pretrain.torchrun_jobs import finish, same_curve, torchrun, wait_for_steps

pytestmark = pytest.mark.slow
TIMEOUT_S = 8
# Until the time-out, until the others have not reported, until the store has not answered; then torchrun's own end.
NOTICED_S = TIMEOUT_S + 3 + 5 + 20
NAMES = [f"dnagpt{os.getpid()}{letter}" for letter in "ab"]
ADDRESSES = ["10.99.41.1", "10.99.41.2"]


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


@pytest.fixture
def hosts() -> Iterator[None]:
    """Two namespaces, a cable between them."""
    if shutil.which("ip") is None:
        pytest.skip("no `ip` command (iproute2)")
    try:
        ip("netns", "add", NAMES[0])
    except RuntimeError as error:
        pytest.skip(f"no network namespaces here: {error}")
    try:
        ip("netns", "add", NAMES[1])
        ip(
            "link",
            "add",
            "eth0",
            "netns",
            NAMES[0],
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            NAMES[1],
        )
        for name, address in zip(NAMES, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def start(host: int, folder: Path, *arguments: str) -> subprocess.Popen:
    """torchrun's part of the job on one host."""
    return torchrun(
        1, "pretrain", "--config", str(folder / "settings.toml"), "--out", str(folder / "run"), *arguments,
        options=(
            "--nnodes=2", f"--node-rank={host}", f"--master-addr={ADDRESSES[0]}", "--master-port=29400",
        ),
        wrapper=("ip", "netns", "exec", NAMES[host]),
        GLOO_SOCKET_IFNAME="eth0",
    )  # fmt: skip


def test_two_hosts_train_together(hosts, tmp_path):
    config = load_config(write_config(tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pretrain(config, tmp_path / "straight")
    torch.set_num_threads(threads)
    jobs = [start(host, tmp_path) for host in (0, 1)]
    outputs = [finish(job) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    assert len(metrics(tmp_path / "run")) == 12
    same_curve(tmp_path / "run", tmp_path / "straight")


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("how", ["killed", "unplugged"])
def test_a_lost_host_is_noticed(hosts, tmp_path, how, lost):
    write_config(tmp_path)
    more = ("--set", f"run.timeout_s={TIMEOUT_S}", "--set", "run.steps=100000")
    jobs = [start(host, tmp_path, *more) for host in (0, 1)]
    wait_for_steps(
        tmp_path / "run", 10, jobs[0]
    )  # the checkpoint of step 4 is whole: that of 8 waited for it
    began = time.monotonic()
    if how == "killed":
        for process in ip("netns", "pids", NAMES[lost]).split():
            os.kill(int(process), signal.SIGKILL)
    else:
        ip("-n", NAMES[lost], "link", "set", "eth0", "down")
    output = finish(jobs[1 - lost])
    seconds = time.monotonic() - began
    finish(jobs[lost])  # the process with the unplugged cable ends too
    assert seconds < NOTICED_S, output
    assert jobs[1 - lost].returncode == 1
    assert f"process {1 - lost} of 2: an exchange failed" in output, output
    wanted = (
        "the host of process 0 does not answer either" if lost == 0 else "gone, or silent for 8 s: process 1"
    )
    assert wanted in output, output
    assert checkpoint.newest(tmp_path / "run").step >= 4
