"""The kernels of the MLP that benchmarks.compile_audit compiles: each dtype at each width."""

from collections.abc import Callable, Iterator
from unittest import mock

import torch

from dnagpt_fast.ops import triton_settings
from dnagpt_fast.ops.mlp import launch

# (width, with bias): the packaged model, the published ones, the 0.1B with biases
SHAPES = ((128, True), (768, False), (2048, False), (768, True))
THOROUGH = ("sm_80", "sm_90")


def cases(architecture: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each shape in bf16; on THOROUGH cards one also in fp32, and one whose width is no whole number of steps."""
    for width, bias in SHAPES:
        yield f"D{width} bfloat16{' bias' * bias}", _call(architecture, width, torch.bfloat16, bias)
    if architecture in THOROUGH:
        yield "D768 float32", _call(architecture, 768, torch.float32, False)
        yield "D80 float16 bias", _call(architecture, 80, torch.float16, True)


def _call(architecture: str, width: int, dtype: torch.dtype, bias: bool) -> Callable[[], object]:
    def call() -> None:
        x = torch.empty(300, width, dtype=dtype)
        up, down = torch.empty(4 * width, width, dtype=dtype), torch.empty(width, 4 * width, dtype=dtype)
        with mock.patch.object(triton_settings, "architecture", return_value=architecture):
            wide, _ = launch.UP(x, up, torch.empty(4 * width, dtype=dtype) if bias else None)
            launch.DWIDE(x, down, wide)

    return call
