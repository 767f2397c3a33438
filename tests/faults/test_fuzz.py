"""A few damaged files of every format of tests/faults/fuzz.py; its command reads 200,000."""

import mmap
import signal
import warnings

import pytest

from tests.faults import fuzz
from tests.faults.fuzz_targets import TARGETS
from tests.faults.memory_of import largest_bytes


@pytest.fixture
def _alarm():
    before = signal.signal(signal.SIGALRM, fuzz._hang)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("_alarm")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_harmed_files_are_read_or_refused_in_words_that_name_them(tmp_path, target):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fuzz.fuzz(target, target.weight + 5, 1, tmp_path)
    assert found.keys() <= {"read", "refused"}, found
    assert found["refused"] > 0


def test_faults_are_seen(tmp_path):
    """The check itself finds each kind of fault."""
    assert fuzz.judged(KeyError("x"), tmp_path) == "traceback"
    assert fuzz.judged(ValueError("something"), tmp_path) == "no file"
    assert fuzz.judged(ValueError(f"{tmp_path}/x: weights_only"), tmp_path) == "advice"
    assert fuzz.judged(ValueError(f"{tmp_path}/x: damaged"), tmp_path) == "refused"
    assert fuzz.judged(fuzz.Hang(), tmp_path) == "hang"
    fuzz.forget_peak()
    before = largest_bytes()
    # new pages from the system: malloc might give memory that the process holds already
    with mmap.mmap(-1, fuzz.MOST_BYTES // 2) as memory:
        memory[::4096] = bytes(len(memory) // 4096)
    assert largest_bytes() - before > fuzz.MOST_BYTES // 4
