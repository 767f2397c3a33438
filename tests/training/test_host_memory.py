"""Freed tensors leave the process at once, in a process of their own: the setting cannot be taken back."""

import subprocess
import sys

import pytest

# Blocks below and above glibc's own threshold of 32 MiB, freed so that a heap would keep all but the last.
SCRIPT = """
import torch
from dnagpt_fast.training.host_memory import return_freed_tensors
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
assert return_freed_tensors()
torch.ones(2**22).sum()
before = resident()
held = [torch.ones(2**21) for _ in range(32)]  # 8 MiB each
last = held[-1]
full = resident() - before
del held
assert full > 250 * 2**20, full
left = resident() - before
assert left < 16 * 2**20, left
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_freed_tensors_go_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
