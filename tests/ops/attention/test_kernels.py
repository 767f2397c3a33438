"""ops.attention: every implementation against the definition in fp64, by the 2x rule, forward and backward."""

import pytest
import torch
import torch.nn.functional as F
from triton.runtime.interpreter import InterpreterBuilder

from dnagpt_fast import ops
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention import launch as attention_triton
from dnagpt_fast.ops.attention.tiles import tile_for
from tests import bf16_in_the_interpreter
from tests.closeness import assert_function_no_worse_than_naive
from tests.ops.attention.cases import KINDS, NAMES, Case

# one token; a prime; one less, one more and exactly the key tile (64) and the query tile (128); 512 and one more
LENGTHS = (1, 17, 63, 64, 65, 127, 128, 129, 512, 513)
SHORT = (1, 17, 65, 129)

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def check(case: Case, implementation: str = "triton") -> None:
    inputs, cotangents = case.inputs()
    assert_function_no_worse_than_naive(
        case.function(implementation), case.function("reference"), inputs, cotangents, NAMES
    )


@pytest.mark.parametrize("T", SHORT)
@pytest.mark.parametrize("K", [32, 64, 128])
@pytest.mark.parametrize("kind", ["causal", "full"])
def test_triton_is_no_worse_than_plain_torch(T, K, kind):
    check(Case(2, 2, T, K, kind))


# tiles of fp32 have 16 and 32 rows: 512 tokens test nothing more than 128, and take seconds each
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "T"),
    [(torch.float16, T) for T in LENGTHS] + [(torch.float32, T) for T in LENGTHS if T < 512],
    ids=str,
)
@pytest.mark.parametrize("K", [32, 64, 128])
@pytest.mark.parametrize("kind", KINDS)
def test_triton_at_every_length_and_kind(T, K, kind, dtype):
    check(Case(1 if "sequences" in kind else 2, 1, T, K, kind, dtype))


@pytest.mark.parametrize("kind", KINDS[2:])
@pytest.mark.parametrize("T", [65, 200])
def test_triton_with_masks_and_rows_without_a_key(T, kind):
    check(Case(1 if "sequences" in kind else 2, 2, T, 32, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_triton_in_half_precision(kind):
    check(Case(1 if "sequences" in kind else 2, 2, 129, 32, kind, torch.float16))
    check(Case(1, 1, 257, 64, kind, torch.float16))


def test_triton_at_the_published_length():
    check(Case(1, 1, 512, 64, "causal", torch.float16))
    check(Case(1, 1, 513, 32, "causal"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("K", [32, 64, 128])
def test_triton_in_bfloat16(K, kind):
    with bf16_in_the_interpreter.corrected():
        check(Case(1, 2, 150, K, kind, torch.bfloat16))


def test_the_interpreter_still_has_its_faults_with_bfloat16():
    assert bf16_in_the_interpreter.faults_of_triton() == ["dot", "rounding"]
    with bf16_in_the_interpreter.corrected():
        assert not bf16_in_the_interpreter.faults_of_triton()


@pytest.mark.parametrize("kind", KINDS)
def test_sdpa_is_no_worse_than_plain_torch(kind):
    check(Case(1 if "sequences" in kind else 2, 3, 97, 16, kind), "sdpa")


def test_the_definition_is_softmax_of_the_scores():
    q, k, v = torch.randn(3, 2, 2, 33, 16, dtype=torch.float64)
    with dispatch.using(attention="reference"):
        o, lse = ops.attention(q, k, v, scale=0.3, return_lse=True)
    torch.testing.assert_close(o, F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3))
    b, h, i = 1, 0, 20
    scores = [0.3 * float(q[b, h, i] @ k[b, h, j]) for j in range(i + 1)]
    torch.testing.assert_close(lse[b, h, i], torch.tensor(scores, dtype=torch.float64).logsumexp(0))


@pytest.mark.parametrize("implementation", ["triton", "sdpa", "reference"])
def test_a_packed_sequence_gives_the_same_as_alone(implementation):
    q, k, v = torch.randn(3, 1, 2, 90, 32)
    cu_seqlens = torch.tensor([0, 40, 40, 41, 90], dtype=torch.int32)
    with dispatch.using(attention=implementation):
        packed = ops.attention(q, k, v, cu_seqlens=cu_seqlens)
        for first, last in ((0, 40), (40, 41), (41, 90)):
            alone = ops.attention(*(x[:, :, first:last] for x in (q, k, v)))
            torch.testing.assert_close(packed[:, :, first:last], alone)


@pytest.mark.parametrize("implementation", ["triton", "sdpa", "reference"])
def test_padded_keys_have_no_effect(implementation):
    q, k, v = torch.randn(3, 1, 2, 80, 32)
    key_mask = torch.arange(80) < 50
    with dispatch.using(attention=implementation):
        padded = ops.attention(q, k, v, key_mask=key_mask[None], causal=False)
        k[:, :, 50:], v[:, :, 50:] = torch.nan if implementation == "triton" else 7.0, 1e4
        again = ops.attention(q, k, v, key_mask=key_mask[None], causal=False)
        cut = ops.attention(q[:, :, :50], k[:, :, :50], v[:, :, :50], causal=False)
    torch.testing.assert_close(padded[:, :, :50], cut)
    torch.testing.assert_close(padded, again, rtol=0, atol=0)


@pytest.mark.parametrize("implementation", ["triton", "sdpa", "reference"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_row_without_a_key_is_zero_and_has_zero_gradients(implementation, causal):
    qkv = torch.randn(3, 2, 1, 40, 32, requires_grad=True)
    key_mask = torch.ones(2, 40, dtype=torch.bool)
    key_mask[0] = False
    with dispatch.using(attention=implementation):
        o, lse = ops.attention(*qkv, key_mask=key_mask, causal=causal, return_lse=True)
    assert torch.equal(o[0], torch.zeros_like(o[0]))
    assert (lse[0] == -torch.inf).all()
    assert torch.isfinite(lse[1]).all()
    (gradient,) = torch.autograd.grad(o.square().sum(), qkv)
    assert torch.equal(gradient[:, 0], torch.zeros_like(gradient[:, 0]))
    assert gradient[:, 1].abs().sum() > 0


def views_of(kind: str) -> torch.Tensor:
    """(3, B, H, T, K) with strides that no contiguous tensor has."""
    if kind == "K is not innermost":
        return torch.randn(3, 2, 2, 32, 70).transpose(-1, -2)
    if kind == "one head for all":
        return torch.randn(3, 2, 1, 70, 32).expand(3, 2, 2, 70, 32)
    if kind == "every second token":
        return torch.randn(3, 2, 2, 140, 32)[:, :, :, ::2]
    return torch.randn(2, 70, 2, 3 * 32 + 5)[..., 5:].unflatten(-1, (3, 32)).permute(3, 0, 2, 1, 4)


@pytest.mark.parametrize(
    "kind", ["K is not innermost", "one head for all", "every second token", "odd offset and gaps"]
)
def test_strided_views_are_accepted(kind):
    x = views_of(kind)

    def run(implementation, x):
        x = x.detach().requires_grad_()
        with dispatch.using(attention=implementation):
            o = ops.attention(*x)
        # the gradient of a sum is expanded: every stride is 0
        return o.detach(), torch.autograd.grad(o.sum(), x)[0]

    for ours, theirs in zip(run("triton", x), run("reference", x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_output_needs_no_copy_to_merge_the_heads():
    q, k, v = torch.randn(3, 2, 3, 20, 32)
    for implementation in ("triton", "sdpa"):
        with dispatch.using(attention=implementation):
            o = ops.attention(q.transpose(1, 2).contiguous().transpose(1, 2), k, v)
        if implementation == "triton":
            assert o.transpose(1, 2).is_contiguous()
    assert o.shape == q.shape


def test_the_same_input_gives_the_same_bits_in_any_batch():
    case = Case(3, 2, 130, 32, "padded")
    (qkv,), (do, _) = case.inputs()

    def run(qkv, do, key_mask):
        qkv = qkv.clone().requires_grad_()
        with dispatch.using(attention="triton"):
            o = ops.attention(*(x.transpose(1, 2) for x in qkv.unbind(2)), key_mask=key_mask)
        return o.detach(), torch.autograd.grad(o, qkv, do)[0]

    key_mask = case.options()["key_mask"]
    whole, again = run(qkv, do, key_mask), run(qkv, do, key_mask)
    alone = run(qkv[2:], do[2:], key_mask[2:])
    for a, b, c in zip(whole, again, alone, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a[2:], c)


def test_gradients_by_finite_differences():
    q, k, v = torch.randn(3, 1, 2, 19, 32, dtype=torch.float64).mul_(0.5).unbind(0)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    key_mask = torch.arange(19)[None] != 7

    def function(q, k, v):
        return attention_triton.attention_triton(q, k, v, scale=0.2, causal=True, key_mask=key_mask)

    # fast mode: one random direction instead of 3,648 numbers
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


def test_saved_for_backward_are_q_k_v_o_and_one_float_a_row():
    q, k, v = (torch.randn(2, 3, 40, 32, requires_grad=True) for _ in "qkv")
    saved = {}

    def pack(x):
        saved[x.data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), dispatch.using(attention="triton"):
        o = ops.attention(q, k, v)
    assert saved.pop(o.data_ptr()) == o.numel()
    for x in (q, k, v):
        assert saved.pop(x.data_ptr()) == x.numel()
    assert list(saved.values()) == [2 * 3 * 40]


def test_no_tile_above_the_diagonal_is_visited(monkeypatch):
    T, K = 600, 32
    q = torch.randn(1, 1, T, K, dtype=torch.float16)
    dots = []
    dot = InterpreterBuilder.create_dot

    def counted(self, a, b, *rest):
        dots.append((a.data.shape[0], b.data.shape[1]))
        return dot(self, a, b, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", counted)
    leaf = q.clone().requires_grad_()
    with dispatch.using(attention="triton"):
        o = ops.attention(leaf, leaf, leaf)
    tile = tile_for("forward", q, T)
    # a query tile from i reads the keys before min(i + BT, T)
    tiles = sum(-(-min(i + tile.BT, T) // tile.BS) for i in range(0, T, tile.BT))
    assert len(dots) == 2 * tiles
    dots.clear()
    o.sum().backward()
    dq, dkdv = tile_for("dq", q, T), tile_for("dkdv", q, T)
    tiles = 3 * sum(-(-min(i + dq.BT, T) // dq.BS) for i in range(0, T, dq.BT))
    tiles += 4 * sum(-(-(T - j) // dkdv.BT) for j in range(0, T, dkdv.BS))
    assert len(dots) == tiles


@pytest.mark.parametrize("implementation", ["triton", "sdpa", "reference"])
def test_a_large_score_does_not_overflow(implementation):
    q, k, v = torch.randn(3, 1, 1, 40, 32)
    with dispatch.using(attention=implementation):
        o, lse = ops.attention(q * 1e3, k * 1e2, v, return_lse=True)
    assert torch.isfinite(o).all()
    assert torch.isfinite(lse).all()


def test_empty_inputs_give_empty_outputs():
    for shape in ((0, 2, 5, 32), (2, 2, 0, 32)):
        q, k, v = torch.randn(3, *shape, requires_grad=True)
        with dispatch.using(attention="triton"):
            o = ops.attention(q, k, v)
        assert o.shape == shape
        o.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("K", [32, 64, 128])
def test_a_head_that_fits_one_tile_in_one_launch(kind, K):
    """Both tiles, full and partly filled, beside fp64."""
    batch = 1 if "sequences" in kind else 2
    check(Case(batch, 2, 64 if K == 32 else 50, K, kind, torch.float16))
    with bf16_in_the_interpreter.corrected():
        check(Case(batch, 1, 128 if K == 64 else 101, K, kind, torch.bfloat16))


@pytest.mark.parametrize("tokens", [1, 64, 65, 128, 129])
def test_a_backward_pass_is_one_launch_up_to_128_tokens(monkeypatch, tokens):
    launched = []
    for name in ("attention_block_backward_kernel", "attention_dq_kernel", "attention_dkdv_kernel"):
        kernel = getattr(attention_triton, name)

        class Counted:
            def __getitem__(self, grid, kernel=kernel, name=name):
                launched.append((name.removeprefix("attention_").removesuffix("_kernel"), grid))
                return kernel[grid]

        monkeypatch.setattr(attention_triton, name, Counted())
    q = torch.randn(2, 3, tokens, 32, dtype=torch.float16, requires_grad=True)
    with dispatch.using(attention="triton"):
        ops.attention(q, q, q).sum().backward()
    if tokens <= 128:
        assert launched == [("block_backward", (6,))]
    else:
        assert [name for name, _ in launched] == ["dq", "dkdv"]
