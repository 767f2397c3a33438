"""The attention kernels as compiled for sm_80, run on the CPU: accesses checked, races sought, schedules shuffled."""

import pytest
import torch

from dnagpt_fast.ops.attention import decode_kernels as attention_decode_triton
from dnagpt_fast.ops.attention import launch as attention_triton
from dnagpt_fast.ops.attention.reference import attention_decode_reference, attention_reference
from tests import ptx
from tests.closeness import assert_no_worse_than_naive, outputs_and_gradients
from tests.ops.attention.cases import NAMES, Case

pytestmark = [pytest.mark.ptx, pytest.mark.usefixtures("poisoned_memory")]
compiled = pytest.mark.skipif(ptx.interpreting(), reason="run by the test that starts a compiling process")

WRITTEN = {
    "attention_forward_kernel": {"p_o", "p_lse"},
    "attention_dq_kernel": {"p_dq", "p_delta"},
    "attention_dkdv_kernel": {"p_dk", "p_dv"},
    "attention_decode_part_kernel": {"p_o", "p_lse2"},
    "attention_decode_combine_kernel": {"p_o"},
}
SEEDS = (0, 1, 2)

# lengths that divide no tile; two tiles of queries and of keys at least; every kind of mask; the three head sizes
CASES = [
    Case(1, 2, 77, 32, "causal", torch.float16),
    Case(1, 1, 150, 32, "causal", torch.bfloat16),
    Case(1, 1, 141, 64, "causal", torch.bfloat16),
    Case(1, 1, 133, 128, "causal", torch.float16),
    Case(1, 1, 77, 64, "full", torch.float16),
    Case(2, 1, 77, 32, "padded", torch.bfloat16),
    Case(2, 1, 69, 64, "padded full", torch.float16),
    Case(1, 2, 141, 32, "sequences", torch.bfloat16),
    Case(1, 1, 141, 64, "sequences full", torch.float16),
    Case(1, 1, 77, 128, "sequences padded", torch.bfloat16),
    Case(1, 1, 45, 32, "causal", torch.float32),
    Case(1, 1, 1, 64, "causal", torch.float16),
]


@pytest.mark.skipif(not ptx.interpreting(), reason="this process compiles already")
def test_in_a_process_that_compiles():
    ptx.rerun_without_the_interpreter(__file__)


def run_compiled(case: Case, seed: int) -> list[torch.Tensor]:
    """o, lse, dqkv of the compiled kernels."""

    def function(qkv):
        q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
        o, lse = attention_triton.attention_triton(q, k, v, scale=case.K**-0.5, **case.options())
        return o, lse.where(lse != -torch.inf, -1.0)

    with ptx.compiled_on_the_cpu(WRITTEN, seed) as ran:
        outputs, gradients = outputs_and_gradients(function, *case.inputs())
    assert ran == {"attention_forward_kernel": 1, "attention_dq_kernel": 1, "attention_dkdv_kernel": 1}
    return [*outputs, *gradients]


def run_plain(case: Case, dtype: torch.dtype) -> list[torch.Tensor]:
    def function(qkv):
        q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
        o, lse = attention_reference(q, k, v, scale=case.K**-0.5, **case.options())
        return o, lse.where(lse != -torch.inf, -1.0)

    inputs, cotangents = case.inputs()
    if dtype == torch.float64:
        inputs, cotangents = [x.double() for x in inputs], [x.double() for x in cotangents]
    outputs, gradients = outputs_and_gradients(function, inputs, cotangents)
    return [*outputs, *gradients]


@compiled
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_backward(case):
    results = [run_compiled(case, seed) for seed in SEEDS]
    plain, truth = run_plain(case, case.dtype), run_plain(case, torch.float64)
    for name, ours, naive, true in zip(NAMES, results[0], plain, truth, strict=True):
        assert_no_worse_than_naive(name, ours, naive, true)
    for other in results[1:]:
        for name, a, b in zip(NAMES, results[0], other, strict=True):
            assert torch.equal(a, b), f"{name} depends on the schedule"


@compiled
def test_a_packed_gradient_is_written_in_place_with_the_same_bits():
    case = Case(2, 2, 77, 32, "causal", torch.bfloat16)
    (qkv,), (do, _) = case.inputs()
    qkv.requires_grad_()
    q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
    results = []
    for seed in (0, 1):
        with ptx.compiled_on_the_cpu(WRITTEN, seed):
            o = attention_triton.attention_packed_triton(qkv, scale=case.K**-0.5)
            apart, _ = attention_triton.attention_triton(q, k, v, scale=case.K**-0.5)
            results += [(x.detach(), *torch.autograd.grad(x, qkv, do, retain_graph=True)) for x in (o, apart)]
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        assert torch.equal(other[1], results[0][1])


@compiled
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("Q", "S", "K"), [(1, 300, 64), (3, 150, 32), (18, 131, 128)])
def test_decode(dtype, Q, S, K):
    B, H = 3, 2
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(B, H, Q, K, generator=generator).to(dtype)
    cache = torch.randn(2, B, S, H, K, generator=generator).to(dtype).transpose(2, 3)
    lengths = torch.tensor([S, Q, S // 2 + 1])
    results = []
    for seed in SEEDS:
        with ptx.compiled_on_the_cpu(WRITTEN, seed) as ran:
            results.append(attention_decode_triton.attention_decode_triton(q, *cache, lengths, scale=K**-0.5))
        assert ran == {"attention_decode_part_kernel": 1, "attention_decode_combine_kernel": 1}
    naive, _ = attention_decode_reference(q, *cache, lengths, scale=K**-0.5)
    truth, _ = attention_decode_reference(q.double(), *cache.double(), lengths, scale=K**-0.5)
    assert_no_worse_than_naive("o", results[0], naive, truth)
    assert all(torch.equal(results[0], other) for other in results[1:])
