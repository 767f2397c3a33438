"""ops.attention as an op: its registration, compilation, choice of implementation, errors."""

import subprocess
import sys
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import TorchDispatchMode

from dnagpt_fast import ops
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops import dispatch, triton_settings
from dnagpt_fast.ops.attention import decode_kernels as attention_decode_triton
from dnagpt_fast.ops.attention import launch as attention_triton
from dnagpt_fast.ops.attention import rule as attention_rule
from dnagpt_fast.ops.attention import tiles as attention_tiles
from dnagpt_fast.ops.attention.rule import decode_implementation_for, implementation_for

FORWARD = torch.ops.dnagpt_fast.attention_forward.default
BACKWARD = torch.ops.dnagpt_fast.attention_backward.default
PACKED_FORWARD = torch.ops.dnagpt_fast.attention_packed_forward.default
PACKED_BACKWARD = torch.ops.dnagpt_fast.attention_packed_backward.default
DECODE = torch.ops.dnagpt_fast.attention_decode.default


def packed(batch=2, tokens=20, heads=2, size=32, dtype=torch.float32):
    """q, k, v as views of one packed projection, which requires a gradient."""
    qkv = torch.randn(batch, tokens, 3, heads, size, dtype=dtype, requires_grad=True)
    return qkv, [x.transpose(1, 2) for x in qkv.unbind(2)]


@pytest.mark.parametrize("masked", [False, True])
def test_opcheck(masked):
    _, (q, k, v) = packed(1)
    key_mask = torch.arange(20)[None] > 3 if masked else None
    start, end = (
        attention_triton.sequence_bounds(torch.tensor([0, 7, 20], dtype=torch.int32), 20)
        if masked
        else (None, None)
    )
    rest = (0.2, True, key_mask, start, end)
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    torch.library.opcheck(FORWARD, (*leaves, *rest))
    q, k, v = (x.detach() for x in (q, k, v))
    o, lse = FORWARD(q, k, v, *rest)
    torch.library.opcheck(BACKWARD, (torch.randn_like(o), torch.randn_like(lse), q, k, v, o, lse, *rest))


def test_opcheck_packed():
    qkv, _ = packed()
    key_mask = torch.arange(20).expand(2, 20) > 3
    rest = (0.2, True, key_mask, None, None)
    torch.library.opcheck(PACKED_FORWARD, (qkv, *rest))
    qkv = qkv.detach()
    o, lse = PACKED_FORWARD(qkv, *rest)
    torch.library.opcheck(PACKED_BACKWARD, (torch.randn_like(o), torch.randn_like(lse), qkv, o, lse, *rest))


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    "options", [{}, {"causal": False, "scale": 0.3}, {"cu_seqlens": [0, 9, 20]}], ids=str
)
def test_packed_gives_the_bits_of_separate_q_k_and_v(options):
    options = {**options}
    if "cu_seqlens" in options:
        options["cu_seqlens"] = torch.tensor(options["cu_seqlens"], dtype=torch.int32)
    qkv, views = packed(1 if "cu_seqlens" in options else 2)
    for implementation in ("triton", "sdpa", "reference"):
        with dispatch.using(attention=implementation):
            o = ops.attention_packed(qkv, **options)
            apart = ops.attention(*views, **options)
        do = torch.randn_like(o)
        (dqkv,) = torch.autograd.grad(o, qkv, do)
        assert torch.equal(o, apart)
        assert torch.equal(dqkv, torch.autograd.grad(apart, qkv, do, retain_graph=True)[0])


def test_a_packed_gradient_is_written_in_one_piece():
    """No stack or copy between the kernels and the projection's gradient: it is the result of the kernels' op."""
    qkv, _ = packed()
    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
            out = function(*arguments, **(kwargs or {}))
            made.append((function, out))
            return out

    with dispatch.using(attention="triton"):
        o = ops.attention_packed(qkv)
        do = torch.randn_like(o)
        with Watch():
            (dqkv,) = torch.autograd.grad(o, qkv, do)
    backward = [out for function, out in made if function is PACKED_BACKWARD]
    assert [out.data_ptr() for out in backward] == [dqkv.data_ptr()]
    assert dqkv.is_contiguous()
    assert not any("stack" in str(function) or "cat" in str(function) for function, _ in made)


def test_opcheck_decode():
    q, cache = torch.randn(2, 2, 1, 32), torch.randn(2, 2, 40, 32)
    torch.library.opcheck(DECODE, (q, cache, cache, torch.tensor([40, 3]), 0.2))


def test_shapes_and_strides_are_known_without_data():
    real = [x.detach() for x in packed()[1]]
    with dispatch.using(attention="triton", attention_decode="triton"):
        o, lse = ops.attention(*real, return_lse=True)
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(x) for x in real]
            o_fake, lse_fake = ops.attention(*fake, return_lse=True)
            decoded = ops.attention_decode(fake[0][:, :, :1], fake[1], fake[2], torch.full((2,), 5))
    assert (o_fake.shape, o_fake.stride(), o_fake.dtype) == (o.shape, o.stride(), o.dtype)
    assert (lse_fake.shape, lse_fake.dtype) == (lse.shape, lse.dtype)
    assert decoded.shape == (2, 2, 1, 32)


def test_a_model_compiles_as_one_graph_with_the_kernels_in_it():
    model = DNAGPT(vocab_size=50, max_len=32, num_layers=2, num_heads=2, embedding_dim=64)
    tokens = torch.randint(0, 50, (2, 24))
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.backends.debugging.aot_eager(graph, inputs)

    with dispatch.using(attention="triton"):
        eager = model.hidden_states(tokens)
        eager.square().sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        compiled = torch.compile(model.hidden_states, fullgraph=True, backend=backend)(tokens)
        compiled.square().sum().backward()
    torch.testing.assert_close(compiled, eager)
    again = [p.grad for p in model.parameters() if p.grad is not None]
    for a, b in zip(again, gradients, strict=True):
        torch.testing.assert_close(a, b)
    assert len(graphs) == 1
    assert sum("attention_packed_forward" in str(node.target) for node in graphs[0].graph.nodes) == 2


@pytest.mark.parametrize("implementation", ["triton", "sdpa", "reference"])
def test_the_chosen_implementation_is_the_one_that_runs(implementation):
    _, (q, k, v) = packed()
    with (
        dispatch.using(attention=implementation),
        mock.patch.object(
            attention_triton, "attention_triton", wraps=attention_triton.attention_triton
        ) as triton,
        mock.patch.object(
            torch.nn.functional,
            "scaled_dot_product_attention",
            wraps=torch.nn.functional.scaled_dot_product_attention,
        ) as sdpa,
    ):
        ops.attention(q, k, v)
    assert (triton.call_count, sdpa.call_count) == {
        "triton": (1, 0),
        "sdpa": (0, 1),
        "reference": (0, 0),
    }[implementation]


def test_the_rule_names_its_reason():
    q = torch.empty(2, 2, 4096, 64, dtype=torch.bfloat16)
    with (
        mock.patch.object(attention_rule, "architecture", return_value="sm_90"),
        mock.patch.object(attention_rule, "cudnn_attends", return_value=True) as cudnn,
    ):
        rule = implementation_for(q)
        assert rule.name == "sdpa"
        assert rule.reason.startswith("cuDNN")
        assert rule.backends[0] == SDPBackend.CUDNN_ATTENTION
        assert implementation_for(q[:, :, :512]).name == "sdpa"
        assert implementation_for(q[..., :32]).name == "sdpa"
        assert implementation_for(q[:, :, :511]).name == "triton"  # shorter than any that was measured
        cudnn.return_value = False  # too old, or switched off: the row does not apply
        assert implementation_for(q).name == "triton"
        cudnn.return_value = True
        assert implementation_for(q, masked=True).name == "triton"
        assert implementation_for(q, return_lse=True).name == "triton"
        assert implementation_for(q, deterministic=True).name == "triton"
        assert implementation_for(q.float()).name == "triton"
    with mock.patch.object(attention_rule, "architecture", return_value="sm_80"):
        assert implementation_for(q).name == "triton"
        assert implementation_for(torch.empty(1, 1, 8, 128, dtype=torch.float16)).name == "sdpa"
    assert implementation_for(q[..., :16]).name == "sdpa"
    assert decode_implementation_for(q[..., :16]).name == "sdpa"
    assert decode_implementation_for(q).name == "triton"


def test_sdpa_runs_the_backend_that_the_rule_names():
    """Not in torch's default order: the first of the row's backends is tried first."""
    _, (q, k, v) = packed()
    asked = []

    def watched(*arguments, **options):
        asked.append(torch._C._get_sdp_priority_order()[0])
        return torch.zeros_like(q)

    rule = attention_rule.Rule("sdpa", "a test", backends=(SDPBackend.FLASH_ATTENTION, SDPBackend.MATH))
    before = torch._C._get_sdp_priority_order()
    with (
        dispatch.using(attention="rule"),
        mock.patch("dnagpt_fast.ops.attention.op.implementation_for", return_value=rule),
        mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", watched),
    ):
        ops.attention(q, k, v)
    assert asked == [SDPBackend.FLASH_ATTENTION.value]
    assert torch._C._get_sdp_priority_order() == before


def test_on_blackwell_few_heads_do_not_go_to_cudnn():
    with (
        mock.patch.object(attention_rule, "architecture", return_value="sm_100"),
        mock.patch.object(attention_rule, "cudnn_attends", return_value=True),
    ):
        assert implementation_for(torch.empty(1, 12, 8, 64, dtype=torch.float16)).name == "sdpa"
        assert implementation_for(torch.empty(1, 7, 8, 64, dtype=torch.float16)).name == "triton"


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[..., :32],  # strides that are no multiples of 16
        lambda x: x[..., 1:33],  # an odd address
        lambda x: x[..., ::2][..., :16],  # gaps
        lambda x: x[:, :1, :, :32].expand(-1, 3, -1, -1),
        lambda x: x[..., :32].transpose(-1, -2),  # the head size is not the innermost axis
    ],
)
def test_every_view_uses_the_same_machine_code(view):
    """A view that descriptors and 16-byte loads cannot read is copied: there is no second kernel for it."""
    x = view(torch.randn(2, 3, 16, 36))
    rows = attention_triton.as_rows(x)
    assert torch.equal(rows, x)
    assert rows.stride(3) == 1
    assert all(step > 0 and step % 16 == 0 for step in rows.stride()[:3])
    assert attention_triton.as_rows(rows) is rows


def test_a_tensor_with_a_stride_too_large_for_32_bits_is_copied():
    x = torch.empty(1, device="meta").as_strided((1, 1, 130, 32), (32, 32, 1 << 25, 1))
    assert attention_triton.as_rows(x).stride(2) == 32
    fits = x.as_strided((1, 1, 130, 32), (32, 32, 1 << 24, 1))
    assert attention_triton.as_rows(fits) is fits


@pytest.mark.parametrize(
    "form", [ops.attention, lambda q, k, v: ops.attention_packed(torch.stack((q, k, v), 2))]
)
def test_no_silent_second_derivative(form):
    leaves = [torch.randn(1, 2, 2, 32, requires_grad=True) for _ in "qkv"]
    with dispatch.using(attention="triton"):
        o = form(*leaves)
    with pytest.raises(RuntimeError, match="attention has no second derivative"):
        torch.autograd.grad(o.sum(), leaves, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_torchs_current_precision_setting_does_not_stop_the_kernels(dtype):
    """`torch.get_float32_matmul_precision` raises after it. Runs in its own process, because the setting cannot be
    undone."""
    code = (
        "import torch; from dnagpt_fast import ops; from dnagpt_fast.ops import dispatch\n"
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'\n"
        f"q = torch.randn(1, 1, 4, 32).to({dtype})\n"
        "with dispatch.using(attention='triton', attention_decode='triton'):\n"
        "    ops.attention(q, q, q); ops.attention_decode(q[:, :, :1], q, q, torch.tensor([4]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_every_card_and_head_size_has_its_tiles():
    for card, family in triton_settings.FAMILIES.items():
        with mock.patch.object(triton_settings, "architecture", return_value=card):
            for size in attention_tiles.HEAD_SIZES:
                for which in ("forward", "dq", "dkdv"):
                    q = torch.empty(1, 1, 1, size, dtype=torch.float16)
                    for tokens in (1, 512, 513, 1 << 20):
                        tile = attention_tiles.tile_for(which, q, tokens)
                        assert tile in attention_tiles.TILES[family, which, size]
                        assert tokens <= tile.up_to


def test_triton_on_the_cpu_needs_the_interpreter():
    q = torch.randn(1, 1, 4, 32)
    with (
        dispatch.using(attention="triton"),
        mock.patch.object(triton_settings, "interpreting", return_value=False),
        pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"),
    ):
        ops.attention(q, q, q)


def test_errors_name_the_input_and_what_was_wanted():
    q = torch.randn(2, 3, 8, 32)
    for arguments, options, message in [
        ((q, q[:, :2], q), {}, r"\(2, 2, 8, 32\).*wanted one \(B, H, T, K\)"),
        ((q[0], q[0], q[0]), {}, "wanted one"),
        ((q, q.half(), q), {}, "torch.float16.*one dtype"),
        ((q.int(), q.int(), q.int()), {}, "torch.int32"),
        ((q, q, q), {"scale": 0.0}, "scale is 0.0"),
        ((q, q, q), {"scale": float("nan")}, "scale is nan"),
        ((q, q, q), {"key_mask": torch.ones(2, 8)}, r"torch.float32 \(2, 8\); wanted bool"),
        ((q, q, q), {"key_mask": torch.ones(2, 7, dtype=torch.bool)}, r"\(2, 7\)"),
        ((q, q, q), {"cu_seqlens": torch.tensor([0, 8], dtype=torch.int32)}, "B must be 1, not 2"),
        ((q[:1], q[:1], q[:1]), {"cu_seqlens": torch.tensor([0, 8])}, "torch.int64.*wanted int32"),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.attention(*arguments, **options)
    with dispatch.using(attention="triton"):
        with pytest.raises(ValueError, match="head sizes"):
            ops.attention(q[..., :16], q[..., :16], q[..., :16])
        with pytest.raises(ValueError, match="head sizes"):
            ops.attention_packed(torch.randn(2, 8, 3, 3, 16))
        with pytest.raises(ValueError, match="scale is -1"):
            ops.attention_packed(torch.randn(2, 8, 3, 3, 32), scale=-1)
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 32\); wanted \(B, T, 3, H, K\)"):
        ops.attention_packed(q)


def test_decode_errors():
    q, cache, lengths = torch.randn(2, 3, 1, 32), torch.randn(2, 3, 8, 32), torch.tensor([1, 8])
    for arguments, message in [
        ((q, cache, cache[:, :, :7], lengths), "wanted"),
        ((torch.randn(2, 3, 9, 32), cache, cache, lengths), "Q <= S"),
        ((q, cache, cache, lengths.float()), "wanted int32 or int64"),
        ((q, cache, cache, lengths[:1]), r"\(1,\)"),
        ((q, cache.half(), cache.half(), lengths), "one dtype"),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.attention_decode(*arguments)


assert attention_decode_triton  # registers the op
