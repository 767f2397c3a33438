"""The device of the tests that need a GPU.

DNAGPT_GPU_REHEARSAL=1 runs them on the CPU instead, so that the tests' own code can be tested without a card; tests
that call CUDA itself are then skipped.
"""

import os

import pytest
import torch

REHEARSAL = os.environ.get("DNAGPT_GPU_REHEARSAL") == "1"


@pytest.fixture
def device():
    """ "cuda"; "cpu" in a rehearsal."""
    if REHEARSAL:
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device (`dnagpt-fast doctor` says why)")
    return "cuda"


@pytest.fixture
def cuda(device):
    """A CUDA device; skips the test without one."""
    if device != "cuda":
        pytest.skip("a rehearsal on the CPU cannot run this")
    return device
