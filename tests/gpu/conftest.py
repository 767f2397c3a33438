"""The device of the tests that need one.

DNAGPT_GPU_REHEARSAL=1 runs them on the CPU instead, so that their own code is tried where there is no card; those that
ask CUDA itself for something are skipped then.
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
    """A CUDA device, or no test."""
    if device != "cuda":
        pytest.skip("a rehearsal on the CPU cannot try this")
    return device
