"""The Triton kernels on a card, with every mask and option, beside fp64: the same cases as in the interpreter."""

from dataclasses import replace

import pytest
import torch

from dnagpt_fast import ops
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention.reference import attention_decode_reference, attention_reference
from dnagpt_fast.ops.combined_loss import launch, products
from dnagpt_fast.ops.combined_loss.occurring import equalize_rest, occurring_tokens
from dnagpt_fast.vocab import Vocabulary
from tests.closeness import assert_no_worse_than_naive, outputs_and_gradients
from tests.ops.attention.cases import KINDS, NAMES, Case
from tests.ops.combined_loss.cases import make_case, run

pytestmark = pytest.mark.gpu


def kernels(device: str) -> dict[str, str]:
    """The implementations under test: on the CPU, in a rehearsal, its own."""
    if device == "cpu":
        reference = {"attention": "sdpa", "attention_decode": "grouped", "combined_loss": "chunked"}
        return reference | {"residual_norm": "reference", "mlp": "dense"}
    ours = ("attention", "attention_decode", "combined_loss", "residual_norm", "mlp")
    return dict.fromkeys(ours, "triton")


def half_or_single(device: str) -> torch.dtype:
    """bfloat16; in a rehearsal float32, because the CPU implementations compute halves in float32."""
    return torch.float32 if device == "cpu" else torch.bfloat16


# two passes of the backward; one launch of it, with a tile that is full and one that is not
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "tokens"), [(32, 261), (64, 261), (128, 261), (32, 64), (64, 128), (64, 50), (128, 64)]
)
def test_attention_with_every_mask(device, size, tokens, kind):
    case = Case(2 if "sequences" not in kind else 1, 2, tokens, size, kind, half_or_single(device))
    (qkv,), cotangents = case.inputs()
    inputs, cotangents = [qkv.to(device)], [x.to(device) for x in cotangents]
    options = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in case.options().items()}

    def of(implementation):
        def function(packed):
            q, k, v = (x.transpose(1, 2) for x in packed.unbind(2))
            if implementation == "plain":
                o, lse = attention_reference(q, k, v, scale=size**-0.5, **options)
            else:
                with dispatch.using(**kernels(device)):
                    o, lse = ops.attention(q, k, v, return_lse=True, **options)
            return o, lse.where(lse != -torch.inf, -1.0)

        return function

    wide, wide_cotangents = [x.double() for x in inputs], [x.double() for x in cotangents]
    ours, naive = (outputs_and_gradients(of(name), inputs, cotangents) for name in ("ours", "plain"))
    truth = outputs_and_gradients(of("plain"), wide, wide_cotangents)
    for name, a, b, c in zip(NAMES, *((*o, *g) for o, g in (ours, naive, truth)), strict=True):
        assert_no_worse_than_naive(name, a, b, c)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_packed_attention_has_the_bits_of_the_separate_one(device, size):
    case = Case(2, 3, 200, size, "causal", half_or_single(device))
    (qkv,), (do, _) = case.inputs()
    leaf, do = qkv.to(device).requires_grad_(), do.to(device)
    q, k, v = (x.transpose(1, 2) for x in leaf.unbind(2))
    with dispatch.using(**kernels(device)):
        packed, separate = ops.attention_packed(leaf), ops.attention(q, k, v)
    assert torch.equal(packed, separate)
    assert torch.equal(*(torch.autograd.grad(o, leaf, do, retain_graph=True)[0] for o in (packed, separate)))


@pytest.mark.parametrize(("queries", "size"), [(1, 64), (3, 32), (18, 128)])
def test_decoding_against_fp64(device, queries, size):
    generator = torch.Generator().manual_seed(0)
    dtype = half_or_single(device)
    q = torch.randn(3, 2, queries, size, generator=generator).to(device, dtype)
    cache = torch.randn(2, 3, 300, 2, size, generator=generator).to(device, dtype).transpose(2, 3)
    lengths = torch.tensor([300, queries, 151], device=device)
    with dispatch.using(**kernels(device)):
        got = ops.attention_decode(q, *cache, lengths)
    naive, _ = attention_decode_reference(q, *cache, lengths, scale=size**-0.5)
    truth, _ = attention_decode_reference(q.double(), *cache.double(), lengths, scale=size**-0.5)
    assert_no_worse_than_naive("o", got, naive, truth)


SETTINGS = {
    "plain": {},
    "skip": {"skip_below": 2**-24},
    "none": {"reduction": "none"},
    "sum": {"reduction": "sum"},
    "smoothing": {"label_smoothing": 0.1},
    "z-loss": {"z_loss": 1e-3},
    "soft cap": {"soft_cap": 5.0},
    "all": {"label_smoothing": 0.1, "z_loss": 1e-3, "soft_cap": 5.0},
}


@pytest.mark.parametrize("chunks", ["one chunk", "a chunk per row tile"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_with_every_setting(device, settings, chunks, monkeypatch):
    if chunks != "one chunk":  # the sum of dW is in memory between the chunks
        monkeypatch.setattr(launch, "MEMORY_BYTES", 1)
    case = make_case(300, 1030, 200, dtype=half_or_single(device), spread=6.0, **SETTINGS[settings])
    check_loss(case, device)


@pytest.mark.parametrize("chunk", [None, 128])
@pytest.mark.parametrize("settings", [name for name in SETTINGS if name not in ("skip", "none")])
def test_loss_with_its_gradient_in_the_forward_pass(cuda, settings, chunk, monkeypatch):
    if chunk:
        monkeypatch.setattr(products, "rows_a_chunk", lambda rows, vocab, itemsize: chunk)
    case = make_case(300, 1030, 200, dtype=torch.bfloat16, spread=6.0, **SETTINGS[settings])
    check_loss(case, cuda, "products")


def test_the_gradient_in_the_forward_pass_gives_the_same_bits_twice(cuda):
    x = torch.randn(7000, 768, device=cuda, requires_grad=True)
    w = (torch.randn(19_564, 768, device=cuda) / 28).requires_grad_()
    targets = torch.randint(0, 19_564, (7000,), device=cuda)
    found = []
    for _ in range(2):
        with dispatch.using(combined_loss="products"), torch.autocast(cuda, torch.bfloat16):
            total = ops.combined_loss(x, w, targets).total
        found.append((total.detach(), *torch.autograd.grad(total, (x, w))))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("implementation", ["triton", "products"])
@pytest.mark.parametrize("base_level", [0.0, 0.4])
def test_loss_over_the_tokens_that_occur(device, base_level, implementation):
    vocabulary = Vocabulary(4)
    tokens = occurring_tokens(vocabulary, [3, 19])
    case = make_case(
        300, len(vocabulary), 72, dtype=half_or_single(device), spread=3.0, base_level=base_level
    )
    equalize_rest(case.tensors["weight"], case.tensors["bias"], tokens)
    case.tensors["targets"][:] = tokens.tokens[torch.randint(0, 258, (300,))]
    case = case.with_(k=4) if base_level else case
    check_loss(case, device, implementation, occurring=tokens.to(device))


def check_loss(case, device, implementation="triton", **also) -> None:
    tensors = {name: None if x is None else x.to(device) for name, x in case.tensors.items()}
    case = replace(case, tensors=tensors)
    truth, naive = run(case.to(torch.float64), "reference"), run(case, "reference")
    ours = run(case.with_(**also), implementation if device == "cuda" else kernels(device)["combined_loss"])
    for name in truth:
        assert_no_worse_than_naive(name, ours[name], naive[name], truth[name])


# widths of the packaged and the published models, and one that divides nothing; more rows than the programs take
@pytest.mark.parametrize(("rows", "width"), [(5000, 768), (3000, 2048), (70, 128), (77, 501), (1, 8192)])
@pytest.mark.parametrize("stream", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_residual_addition_and_norm(device, rows, width, stream, bias):
    out = half_or_single(device)
    x, b, ds, dy = (torch.randn(rows, width, device=device) for _ in range(4))
    inputs = [x.to(stream), b.to(out), torch.randn(width, device=device)]
    inputs += [torch.randn(width, device=device)] * bias

    def of(implementation):
        def function(*tensors):
            with dispatch.using(residual_norm=implementation):
                dtype = torch.float64 if tensors[0].dtype == torch.float64 else out
                return ops.residual_norm(*tensors, dtype=dtype)

        return function

    ours = outputs_and_gradients(of(kernels(device)["residual_norm"]), inputs, [ds, dy])
    again = outputs_and_gradients(of(kernels(device)["residual_norm"]), inputs, [ds, dy])
    naive = outputs_and_gradients(of("reference"), inputs, [ds, dy])
    truth = outputs_and_gradients(of("reference"), [i.double() for i in inputs], [ds.double(), dy.double()])
    names = ["s", "y", "d stream", "d branch", "d weight", "d bias"]
    for name, a, twice, n, t in zip(names, *((*o, *g) for o, g in (ours, again, naive, truth)), strict=False):
        assert torch.equal(a, twice), f"{name}: other bits the second time"
        assert_no_worse_than_naive(name, a, n, t)


# widths of the packaged and the published models, and one that divides nothing
@pytest.mark.parametrize(("rows", "width"), [(1000, 768), (300, 2048), (500, 128), (77, 90)])
@pytest.mark.parametrize("bias", [False, True])
def test_mlp(device, rows, width, bias):
    dtype, wide = half_or_single(device), 4 * width
    inputs = [torch.randn(rows, width), torch.randn(wide, width) * width**-0.5]
    inputs += [torch.randn(width, wide) * wide**-0.5, *[torch.randn(size) for size in (wide, width)] * bias]
    inputs, dy = [x.to(device, dtype) for x in inputs], torch.randn(rows, width, device=device)

    def of(implementation):
        def function(x, up, down, up_bias=None, down_bias=None):
            with dispatch.using(mlp=implementation):
                return ops.mlp(x, up, down, up_bias=up_bias, down_bias=down_bias)

        return function

    ours, again = (outputs_and_gradients(of(kernels(device)["mlp"]), inputs, [dy]) for _ in range(2))
    naive = outputs_and_gradients(of("reference"), inputs, [dy])
    truth = outputs_and_gradients(of("reference"), [x.double() for x in inputs], [dy.double()])
    names = ["y", "dx", "d up", "d down", "d up bias", "d down bias"]
    for name, a, twice, n, t in zip(names, *((*o, *g) for o, g in (ours, again, naive, truth)), strict=False):
        assert torch.equal(a, twice), f"{name}: other bits the second time"
        assert_no_worse_than_naive(name, a, n, t)
