"""Fixture of the CUDA tests: one build of the stand-in for all of them."""

import pytest

from tests.cuda.stand_in import answers, build


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """cases, seed -> output arrays."""
    folder = tmp_path_factory.mktemp("stand_in")
    program = build(folder)
    return lambda cases, seed=0: answers(program, folder, cases, seed)
