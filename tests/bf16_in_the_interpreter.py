"""Fixes bfloat16 in Triton's interpreter, which multiplies bf16 bits as integers in tl.dot and truncates
where a card rounds.

`faults_of_triton` finds the faults that the installed Triton still has. When Triton fixes them, its test
fails, and this file can be removed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def to_float32(bits: np.ndarray) -> np.ndarray:
    """bf16 bits (uint16) -> the same numbers in float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bf16_bits(values: np.ndarray) -> np.ndarray:
    """float32 -> bf16 bits, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def faults_of_triton() -> list[str]:
    """The faults of this Triton's interpreter, of "dot" and "rounding"."""
    builder = InterpreterBuilder()
    faults = []
    ones = TensorHandle(np.full((1, 1), 0x3F80, dtype=np.uint16), tl.bfloat16)
    zero = TensorHandle(np.zeros((1, 1), dtype=np.float32), tl.float32)
    if builder.create_dot(ones, ones, zero, None, 0).data[0, 0] != 1.0:
        faults.append("dot")
    upper = TensorHandle(np.array([1.0 + 2**-8 + 2**-9], dtype=np.float32), tl.float32)
    if builder.create_fp_trunc(upper, tl.bfloat16).data[0] != 0x3F81:
        faults.append("rounding")
    return faults


@contextmanager
def corrected() -> Iterator[None]:
    """In this context tl.dot and the cast from float32 treat bf16 as a card does."""
    dot, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

    def widened(x: TensorHandle) -> TensorHandle:
        return TensorHandle(to_float32(x.data), tl.float32) if x.dtype.scalar == tl.bfloat16 else x

    def create_dot(self, a, b, d, *rest):
        return dot(self, widened(a), widened(b), d, *rest)

    def cast_impl(self, source, target):
        if source.dtype.scalar == tl.float32 and target.scalar == tl.bfloat16:
            return TensorHandle(to_bf16_bits(source.data), tl.bfloat16)
        return cast(self, source, target)

    with (
        mock.patch.object(InterpreterBuilder, "create_dot", create_dot),
        mock.patch.object(InterpreterBuilder, "cast_impl", cast_impl),
    ):
        yield
