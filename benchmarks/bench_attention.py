"""ops.attention forward and backward against plain torch, for the shapes of the published models.

    pytest benchmarks/bench_attention.py --benchmark-json=out.json

On CPU: the default implementation beside the definition in plain torch, fp32. With a CUDA device: every
implementation of benchmarks/gpu_attention.py, bf16. Outputs and gradients are checked before any time is
taken.
"""

import pytest
import torch

from benchmarks.gpu_attention import Shape, check, contenders, inputs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# 0.1B at its 512 tokens, and 3B's head size; few sequences on the CPU, so that a round takes a fraction of a
# second
SHAPES = (
    [Shape(2, 12, 512, 64), Shape(2, 16, 512, 32)]
    if DEVICE == "cpu"
    else [Shape(8, 12, 512, 64), Shape(8, 64, 512, 32)]
)
DTYPE = torch.float32 if DEVICE == "cpu" else torch.bfloat16


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", list(contenders(DEVICE)))
@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "forward-backward"])
def test_attention(benchmark, shape, name, gradient):
    function = contenders(DEVICE)[name]
    qkv, do = inputs(shape, DTYPE, DEVICE)
    check(function, qkv, do)

    def one_pass():
        o = function(*qkv)
        if gradient:
            torch.autograd.grad(o, qkv, do)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    benchmark.group = f"attention {shape} {'forward-backward' if gradient else 'forward'}"
    benchmark.extra_info |= {"contender": name, "shape": str(shape), "dtype": str(DTYPE)}
    benchmark.pedantic(one_pass, rounds=5, warmup_rounds=1)
