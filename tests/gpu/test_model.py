"""Attention, loss and whole training steps on a card, compared with plain torch and the CPU."""

import pytest
import torch

from benchmarks import bench_combined_loss, gpu_attention, gpu_model
from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.ops import dispatch

pytestmark = pytest.mark.gpu

SMALL = ModelConfig(19_564, 128, 2, 4, 256, False)


# one tile and part of another, and the shapes of the published models
@pytest.mark.parametrize("shape", [(2, 3, 77, 32), (1, 2, 130, 64), (1, 12, 512, 64), (1, 4, 4096, 32)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_attention(device, shape, dtype):
    if device == "cpu" and shape[2] > 130:
        pytest.skip("too long for the CPU")
    qkv, do = gpu_attention.inputs(gpu_attention.Shape(*shape), dtype, device)
    for function in gpu_attention.contenders(device).values():
        try:
            function(*qkv)
        except (RuntimeError, ValueError, NotImplementedError):
            assert function is not gpu_attention.contenders(device).get("ours (triton)")
            continue
        gpu_attention.check(function, qkv, do)


def test_attention_gives_the_same_bits_twice(cuda):
    qkv, do = gpu_attention.inputs(gpu_attention.Shape(4, 12, 512, 64), torch.bfloat16, cuda)
    function = gpu_attention.contenders(cuda)["ours (triton)"]
    once, again = (torch.autograd.grad(function(*qkv), qkv, do) for _ in range(2))
    assert all(map(torch.equal, once, again))


def test_decoding(device):
    shapes = [gpu_attention.Cached(2, 4, 300, 64), gpu_attention.Cached(3, 2, 77, 32)]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    made = list(gpu_attention.decode_rows(shapes, dtype, device, lambda call: (call(), 1.0)[1]))
    assert sum("us" in row for row in made) >= 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_combined_loss(device, dtype):
    if device == "cpu" and dtype is torch.bfloat16:
        pytest.skip("on the CPU half precision is computed in fp32, plain torch's is not")
    bench_combined_loss.check(bench_combined_loss.ours, *bench_combined_loss.inputs(device, dtype, 300))


def test_a_step_of_pre_training_against_plain_torch(device):
    gpu_model.Steps(SMALL, 2, device, 1 << 16, bf16=device == "cuda").check()


def test_a_few_steps_lower_the_loss(device):
    steps = gpu_model.Steps(SMALL, 4, device, 1 << 12, bf16=device == "cuda")
    batch = steps.batch()
    before = steps.loss(batch).item()
    for _ in range(5):
        steps.optimizer.zero_grad()
        steps.loss(batch).backward()
        steps.optimizer.step()
    assert steps.loss(batch).item() < before


def test_generation(device):
    rows = list(gpu_model.generate_rows(device, lambda call: (call(), 1.0)[1], SMALL, 2, 8))
    assert [row["dtype"] for row in rows] == ["torch.float32", "torch.bfloat16"]


def test_the_defaults_run(device):
    """No choice is forced: the implementations of the dispatch table for this device run."""
    table = dispatch.table()
    assert table["kmer_tokenize"][device] == "native"
    steps = gpu_model.Steps(SMALL, 2, device, 1 << 12, bf16=device == "cuda")
    steps.step()
    assert all(torch.isfinite(p).all() for p in steps.model.parameters())
