"""Jobs of several processes under torchrun, with gloo on this machine, for tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.pretrain.runs import ROOT, metrics


def torchrun(
    world_size: int,
    *arguments: str,
    options: Sequence[str] = ("--standalone",),
    module: Sequence[str] = ("dnagpt_fast",),
    wrapper: Sequence[str] = (),
    **environment: str,
) -> subprocess.Popen:
    """`dnagpt-fast ARGUMENTS` under torchrun with gloo, one thread a process; its own session, to be killed whole.

    options  of torchrun, besides the number of processes
    module   that every process runs, and what it takes before ARGUMENTS
    wrapper  a command that runs torchrun, as `env` does
    """
    return subprocess.Popen(
        [
            *wrapper, sys.executable, "-m", "torch.distributed.run", *options, f"--nproc-per-node={world_size}",
            "-m", *module, *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    """All that the job printed, on one line each word apart, so that a message is found however it was wrapped."""
    try:
        return " ".join(process.communicate(timeout=180)[0].split())
    finally:
        if process.poll() is None:
            for pid in workers(process):  # each in a session of its own
                os.kill(pid, signal.SIGKILL)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


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


def same_curve(run: Path, other: Path) -> None:
    for one, two in zip(metrics(run), metrics(other), strict=True):
        # The same samples and the same sums in another order: fp32 rounding, 1e-7, seen to grow to 3e-7 in 12 steps of
        # AdamW at a rate of 1e-2.
        for name in ("loss", "next_token", "order", "grad_norm", "lr"):
            assert one[name] == pytest.approx(two[name], rel=1e-5), (one["step"], name)
