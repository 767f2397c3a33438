"""The attention kernels compiled for three cards and run on the CPU, with every access and order checked."""

import re

import pytest
import torch

from dnagpt_fast.ops import triton_settings
from dnagpt_fast.ops.attention import decode_kernels as attention_decode_triton
from dnagpt_fast.ops.attention import extend_kernel
from dnagpt_fast.ops.attention import launch as attention_triton
from dnagpt_fast.ops.attention import tiles as attention_tiles
from dnagpt_fast.ops.attention.reference import (
    attention_decode_reference,
    attention_reference,
    write_newest,
)
from tests import ptx
from tests.closeness import assert_no_worse_than_naive, outputs_and_gradients
from tests.ops.attention.cases import NAMES, Case
from tests.ptxrun.ptxrun import PtxError

pytestmark = [pytest.mark.ptx, pytest.mark.usefixtures("poisoned_memory")]
compiled = pytest.mark.skipif(
    ptx.interpreting(), reason="run by the test that starts a process that compiles"
)

WRITTEN = {
    "attention_forward_kernel": {"p_o", "p_lse"},
    "attention_dq_kernel": {"p_dq", "p_delta"},
    "attention_dkdv_kernel": {"p_dk", "p_dv"},
    "attention_block_backward_kernel": {"p_dq", "p_dk", "p_dv"},
    "attention_decode_part_kernel": {"p_o", "p_lse2"},
    "attention_decode_combine_kernel": {"p_o"},
    "attention_extend_kernel": {"p_k", "p_v", "p_o", "p_part_o", "p_lse2"},
}
CARDS = ("sm_80", "sm_90", "sm_100")

# lengths that divide no tile; two tiles of queries and of keys at least; every kind of mask; the three head sizes
CASES = [
    Case(1, 2, 77, 32, "causal", torch.float16),
    Case(1, 1, 150, 32, "causal", torch.bfloat16),
    Case(1, 1, 141, 64, "causal", torch.bfloat16),
    Case(1, 1, 133, 128, "causal", torch.float16),
    Case(1, 1, 141, 64, "full", torch.float16),
    Case(2, 1, 141, 32, "padded", torch.bfloat16),
    Case(2, 1, 133, 64, "padded full", torch.float16),
    Case(1, 2, 141, 32, "sequences", torch.bfloat16),
    Case(1, 1, 141, 64, "sequences full", torch.float16),
    Case(1, 1, 77, 128, "sequences padded", torch.bfloat16),
    Case(1, 1, 45, 32, "causal", torch.float32),
    Case(1, 1, 1, 64, "causal", torch.float16),
]
# a backward pass in one launch: both tiles, full and partly filled; those of up to 128 tokens above are such, too
ONE_LAUNCH = [
    Case(2, 2, 64, 32, "causal", torch.bfloat16),
    Case(1, 1, 41, 64, "full", torch.float16),
    Case(1, 1, 64, 128, "causal", torch.bfloat16),
    Case(1, 1, 50, 128, "sequences padded", torch.float16),
    Case(1, 2, 128, 64, "causal", torch.bfloat16),
    Case(1, 1, 100, 32, "sequences", torch.float16),
    Case(2, 1, 128, 32, "padded full", torch.bfloat16),
]
# several iterations of the pipelined loop, so that a stage is used again
LONG = [
    Case(1, 1, 400, 32, "causal", torch.float16),
    Case(1, 1, 401, 64, "full", torch.bfloat16),
    Case(1, 1, 300, 128, "causal", torch.bfloat16),
    Case(1, 1, 399, 64, "sequences", torch.float16),
    Case(1, 1, 270, 32, "sequences padded", torch.bfloat16),
    Case(2, 1, 260, 128, "padded", torch.float16),
    Case(2, 2, 129, 64, "causal", torch.float16),
]


@pytest.mark.skipif(not ptx.interpreting(), reason="this process already compiles")
def test_in_a_process_that_compiles():
    ptx.rerun_without_the_interpreter(__file__)


def run_compiled(case: Case, seed: int, card: str, edit=None) -> tuple[list[torch.Tensor], dict]:
    """o, lse, dqkv of the kernels compiled for `card`, and the executed programs."""

    def function(qkv):
        q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
        o, lse = attention_triton.attention_triton(q, k, v, scale=case.K**-0.5, **case.options())
        return o, lse.where(lse != -torch.inf, -1.0)

    with ptx.compiled_on_the_cpu(WRITTEN, seed, card=card, edit=edit) as ran:
        outputs, gradients = outputs_and_gradients(function, *case.inputs())
    most = attention_tiles.BLOCKS[triton_settings.FAMILIES[card], case.K][-1].up_to
    if case.dtype != torch.float32 and most >= case.T:
        backward = ["attention_block_backward_kernel"]
    else:
        backward = ["attention_dq_kernel", "attention_dkdv_kernel"]
    assert [*ran] == ["attention_forward_kernel", *backward]
    return [*outputs, *gradients], ran


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
@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("case", CASES + ONE_LAUNCH + LONG, ids=str)
def test_forward_and_backward(case, card):
    (results, ran), *others = (run_compiled(case, seed, card) for seed in ptx.SEEDS)
    plain, truth = run_plain(case, case.dtype), run_plain(case, torch.float64)
    for name, ours, naive, true in zip(NAMES, results, plain, truth, strict=True):
        assert_no_worse_than_naive(name, ours, naive, true)
    for other, _ in others:
        for name, a, b in zip(NAMES, results, other, strict=True):
            assert torch.equal(a, b), f"{name} depends on the schedule"
    if case.dtype != torch.float32:
        assert all(ptx.runs(ran, kernel, ptx.PRODUCT[card]) for kernel in ran)
        tile = attention_tiles.TILES[triton_settings.FAMILIES[card], "forward", case.K][0]
        copied = ptx.runs(ran, "attention_forward_kernel", "cp.async.bulk.tensor")
        assert copied == tile.tma or triton_settings.triton_version() < (3, 7)


# Each removes one fence, wait or count from the forward kernel: if this were not detected, a clean run would prove
# nothing about them.
FAULTS = {
    ("sm_90", "wait_group"): (r"wgmma\.wait_group\.sync\.aligned\s+0;", ""),
    ("sm_90", "wgmma.fence"): (r"wgmma\.fence\.sync\.aligned;", ""),
    ("sm_90", "fence.proxy.async"): (r"fence\.proxy\.async\.shared::cta;", ""),
    ("sm_90", "bar.sync"): (r"bar\.sync\s+0;", ""),
    ("sm_90", "mbarrier wait"): (r"@!complete bra\.uni waitLoop;", ""),
    ("sm_90", "mbarrier parity"): (r"(try_wait\.parity[^;]*\], )(%r\d+);", r"\g<1>0;"),
    ("sm_90", "expected bytes"): (r"(expect_tx[^;]*, )16384;", r"\g<1>16368;"),
    ("sm_90", "mbarrier count"): (r"(mbarrier\.init[^;]*, )1;", r"\g<1>2;"),
    ("sm_100", "tcgen05.wait::st"): (r"tcgen05\.wait::st\.sync\.aligned;", ""),
    ("sm_100", "tcgen05.commit"): (r"(@%p\d+ )?tcgen05\.commit[^;]*;", ""),
    ("sm_100", "named barrier"): (r"bar\.sync\s+[1-9]\d*, \d+;", ""),
}


@compiled
@pytest.mark.parametrize(("card", "fault"), FAULTS)
def test_a_fault_in_the_machine_code_is_detected(card, fault):
    find, put = FAULTS[card, fault]
    places = []

    def edit(kernel, text):
        if kernel != "attention_forward_kernel":
            return text
        text, found = re.subn(find, put, text)
        places.append(found)
        return text

    for seed in ptx.SEEDS:
        with pytest.raises((PtxError, AssertionError)):
            run_compiled(Case(1, 1, 400, 64, "full", torch.bfloat16), seed, card, edit)
    assert all(places)


@compiled
def test_a_packed_gradient_is_written_in_place_with_the_same_bits():
    case = Case(2, 2, 141, 32, "causal", torch.bfloat16)
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
@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("Q", "S", "K"), [(1, 300, 64), (3, 150, 32), (18, 131, 128)])
def test_decode(dtype, Q, S, K, card):
    B, H = 3, 2
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(B, H, Q, K, generator=generator).to(dtype)
    cache = torch.randn(2, B, S, H, K, generator=generator).to(dtype).transpose(2, 3)
    lengths = torch.tensor([S, Q, S // 2 + 1])
    results = []
    for seed in ptx.SEEDS:
        with ptx.compiled_on_the_cpu(WRITTEN, seed, card=card) as ran:
            results.append(attention_decode_triton.attention_decode_triton(q, *cache, lengths, scale=K**-0.5))
        assert [*ran] == ["attention_decode_part_kernel", "attention_decode_combine_kernel"]
    naive, _ = attention_decode_reference(q, *cache, lengths, scale=K**-0.5)
    truth, _ = attention_decode_reference(q.double(), *cache.double(), lengths, scale=K**-0.5)
    assert_no_worse_than_naive("o", results[0], naive, truth)
    assert all(torch.equal(results[0], other) for other in results[1:])


@compiled
@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize(
    ("S", "K", "dtype"), [(150, 64, torch.float16), (600, 32, torch.bfloat16), (70, 128, torch.float32)]
)
def test_extend(S, K, dtype, card):
    """One part and two; a lane that fills its cache, one that begins, a spare row."""
    B, H = 3, 2
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(B + 1, 3 * H * K, generator=generator).to(dtype)
    caches = torch.randn(2, B, H, S, K, generator=generator).to(dtype)
    lengths = torch.tensor([S - 1, 0, S // 2])
    results = []
    for seed in ptx.SEEDS:
        changed = caches.clone()
        with ptx.compiled_on_the_cpu(WRITTEN, seed, card=card) as ran:
            o = extend_kernel.attention_extend_triton(qkv, *changed, lengths, scale=K**-0.5)
        results.append((o, changed))
        combined = ["attention_decode_combine_kernel"] if S > extend_kernel.KEYS else []
        assert [*ran] == ["attention_extend_kernel", *combined]
    q = write_newest(qkv, *caches, lengths)
    naive, _ = attention_decode_reference(q, *caches, lengths + 1, scale=K**-0.5)
    truth, _ = attention_decode_reference(q.double(), *caches.double(), lengths + 1, scale=K**-0.5)
    for o, changed in results:
        assert_no_worse_than_naive("o", o[:B], naive.reshape(B, -1), truth.reshape(B, -1))
        assert torch.equal(changed, caches)
        assert torch.equal(o, results[0][0])
        assert not o[B:].any()
