"""The kernels of residual addition and LayerNorm that benchmarks.compile_audit compiles: each dtype at each width."""

from collections.abc import Callable, Iterator
from unittest import mock

import torch

from dnagpt_fast.ops import triton_settings
from dnagpt_fast.ops.residual_norm import launch

HALF, FULL = torch.bfloat16, torch.float32
# (width, with bias): the packaged model, the published ones, the 0.1B with biases, and the widest that the kernels take
SHAPES = ((128, True), (768, False), (2048, False), (768, True), (8192, False))
# (name, dtypes of the stream, of the branch and y, of the weight)
KINDS = (
    ("bfloat16 stream", HALF, HALF, FULL),
    ("float32 stream", FULL, HALF, FULL),
    ("float32", FULL, FULL, FULL),
    ("bfloat16 model", HALF, HALF, HALF),
)


def cases(architecture: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each shape with either stream under autocast, in float32, and in a model of half precision."""
    for width, bias in SHAPES:
        for name, *dtypes in KINDS:
            yield f"D{width} {name}{' bias' * bias}", _call(architecture, width, *dtypes, bias=bias)


def _call(
    architecture: str, width: int, stream: torch.dtype, branch: torch.dtype, norm: torch.dtype, *, bias: bool
) -> Callable[[], object]:
    def call() -> None:
        x, b = torch.empty(300, width, dtype=stream), torch.empty(300, width, dtype=branch)
        weight = torch.empty(width, dtype=norm)
        with mock.patch.object(triton_settings, "architecture", return_value=architecture):
            s, y, mean, rstd = launch.FORWARD(x, b, weight, weight if bias else None, 1e-5, branch)
            launch.BACKWARD(s, y, s, weight, mean, rstd, branch, bias)
            # the last norm, whose stream has no other use
            launch.BACKWARD(None, y, s, weight, mean, rstd, branch, bias)

    return call
