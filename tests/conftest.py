"""Settings of all tests: the Triton interpreter if there is no GPU, poisoned memory, fixed seeds."""

import os
import signal

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    # read by triton when it is first imported, so it is set before any test module is
    os.environ.setdefault("TRITON_INTERPRET", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell's background job ignores Ctrl-C, and so would the commands that the tests start and interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)

DEFAULT = "not slow and not ptx and not gpu"  # the markers of `pytest` alone, as pyproject.toml has them

settings.register_profile("project", deadline=None, print_blob=True)
settings.load_profile("project")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers of `pytest` alone: two, each with one thread. Everything that names its tests runs in one process."""
    everything = config.args_source is not pytest.Config.ArgsSource.ARGS and config.option.markexpr == DEFAULT
    if not everything or config.option.usepdb or config.option.capture == "no":
        return 0
    os.environ["OMP_NUM_THREADS"] = "1"
    return 2


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """File contents are named by their argument: two workers must name each test alike, and gzip writes the time."""
    contents = isinstance(val, bytes) or (isinstance(val, str) and (len(val) > 60 or "\n" in val))
    return argname if contents else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """Skips tests of kernels, and only those, where Triton's interpreter is known not to work (docs/gpu_code.md)."""
    try:
        return (yield)
    except Exception as error:
        from dnagpt_fast.ops.triton_settings import interpreter_fault

        known = "only 0-dimensional arrays can be converted" in str(
            error
        ) or "the interpreter of Triton" in str(error)
        if known and (fault := interpreter_fault()):
            pytest.skip(fault)
        raise


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture
def poisoned_memory():
    """torch.empty returns NaN (floats) or the largest value (integers), so that an unwritten element is seen."""
    was = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(was[0], warn_only=was[1])
