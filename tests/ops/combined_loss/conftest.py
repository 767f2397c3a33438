"""Fixture of the combined loss's tests: bfloat16 that works as on a card."""

from contextlib import nullcontext

import pytest
import triton

from tests import bf16_in_the_interpreter


@pytest.fixture(autouse=True)
def real_bf16():
    """Triton's interpreter gets bf16 wrong; replaced while a test runs, where there is an interpreter."""
    with bf16_in_the_interpreter.corrected() if triton.knobs.runtime.interpret else nullcontext():
        yield
