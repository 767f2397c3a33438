"""mlp: every implementation beside the definition in fp64, by the 2x rule, and as an op of torch."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dnagpt_fast.ops import dispatch, mlp
from dnagpt_fast.ops.mlp import launch
from tests import bf16_in_the_interpreter
from tests.closeness import assert_function_no_worse_than_naive

pytestmark = pytest.mark.usefixtures("poisoned_memory")
HALF, FULL = torch.bfloat16, torch.float32
# rows, D, F, D_out: one of each; primes, in several tiles; whole tiles of fp32 (64 x 32, steps of 32); a block
SHAPES = [(1, 1, 1, 1), (131, 13, 149, 7), (128, 64, 192, 64), (5, 160, 640, 160)]
NAMES = ["y", "dx", "d up", "d down", "d up bias", "d down bias"]


def inputs(rows, D, F, D_out, dtype, bias):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(2, rows, D, generator=generator)]
    made += [2 * torch.randn(F, D, generator=generator) * D**-0.5]  # GELU's arguments reach its flat ends
    made += [torch.randn(D_out, F, generator=generator) * F**-0.5]
    made += [torch.randn(size, generator=generator) for size in (F, D_out)] * bias
    return [x.to(dtype) for x in made]


def by(implementation):
    def run(x, up, down, up_bias=None, down_bias=None):
        with dispatch.using(mlp=implementation):
            return mlp(x, up, down, up_bias=up_bias, down_bias=down_bias)

    return run


def check(shape, dtype, bias, implementation="triton"):
    rows, _, _, D_out = shape
    cotangents = [torch.randn(2, rows, D_out, generator=torch.Generator().manual_seed(1))]
    tensors = inputs(*shape, dtype, bias)
    names = NAMES[: 1 + len(tensors)]
    assert_function_no_worse_than_naive(by(implementation), by("reference"), tensors, cotangents, names)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_in_float32(shape, bias):
    check(shape, FULL, bias)


@pytest.mark.parametrize("bias", [False, True])
def test_in_half_precision(bias):
    check((150, 45, 180, 45), torch.float16, bias)
    check((1, 128, 512, 128), torch.float16, bias)
    with bf16_in_the_interpreter.corrected():
        check((150, 72, 288, 72), HALF, bias)


@pytest.mark.parametrize("implementation", ["dense", "triton"])
def test_in_float64(implementation):
    check((20, 9, 36, 9), torch.float64, True, implementation)


def test_dense_is_no_worse_than_the_definition():
    check((131, 13, 149, 7), FULL, True, "dense")
    check((131, 16, 64, 16), FULL, False, "dense")


def test_ends_of_gelu():
    """Where it is 0 or the identity, as torch's."""
    z = torch.tensor([[-1e12, -90.0, -8.0, -0.0, 0.0, 8.0, 90.0, 1e12]]).T.contiguous()
    one = torch.ones(1, 1)
    results = []
    for implementation in ("triton", "reference"):
        leaf = z.clone().requires_grad_()
        y = by(implementation)(leaf, one, one)
        results.append((y.detach(), torch.autograd.grad(y.sum(), leaf)[0]))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain)


def test_only_the_gradients_that_are_wanted_are_made(monkeypatch):
    x, up, down, *_ = inputs(6, 8, 32, 8, FULL, False)
    down.requires_grad_()
    y = by("triton")(x, up, down)
    monkeypatch.setattr(launch, "DWIDE", None)  # a call would raise
    (d_down,) = torch.autograd.grad(y.sum(), down)
    assert d_down.shape == down.shape


def test_the_same_bits_twice_and_in_any_batch():
    def run(rows):
        leaves = [x.requires_grad_() for x in inputs(150, 24, 96, 24, FULL, True)]
        y = by("triton")(leaves[0][:, rows], *leaves[1:])
        return [y.detach(), torch.autograd.grad(y.sum(), leaves[0])[0][:, rows]]

    whole, again, part = run(slice(None)), run(slice(None)), run(slice(70, 130))
    for a, b, c in zip(whole, again, part, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a[:, 70:130], c)


def test_no_rows():
    leaves = [x.requires_grad_() for x in inputs(0, 8, 32, 5, FULL, True)]
    y = by("triton")(*leaves)
    assert y.shape == (2, 0, 5)
    gradients = torch.autograd.grad(y.sum(), leaves)
    assert not any(gradient.any() for gradient in gradients)


def test_under_autocast():
    x, up, down, up_bias, down_bias = inputs(5, 16, 64, 16, FULL, True)
    leaves = [x.to(HALF), *(one.requires_grad_() for one in (up, down, up_bias, down_bias))]
    with torch.autocast("cpu", dtype=HALF), bf16_in_the_interpreter.corrected():
        y = by("triton")(*leaves)
        assert y.dtype == by("reference")(*leaves).dtype == by("dense")(*leaves).dtype == HALF
    for gradient, leaf in zip(torch.autograd.grad(y.sum(), leaves[1:]), leaves[1:], strict=True):
        assert gradient.dtype == leaf.dtype == FULL


def test_as_ops_of_torch():
    x, up, down, up_bias, _ = inputs(9, 16, 64, 16, FULL, True)
    kinds = ("test_schema", "test_faketensor")
    torch.library.opcheck(launch.UP.default, (x[0], up, up_bias), test_utils=kinds)
    torch.library.opcheck(launch.DWIDE.default, (x[0], down, x.new_ones(9, 64)), test_utils=kinds)
    with FakeTensorMode() as mode, dispatch.using(mlp="triton"):
        fakes = [mode.from_tensor(one.requires_grad_()) for one in (x, up, down)]
        y = mlp(*fakes)
        assert y.shape == x.shape
        y.sum().backward()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_it_is_one_graph():
    tensors = inputs(9, 16, 64, 16, FULL, True)
    leaves = [x.requires_grad_() for x in tensors]

    def run(x, up, down, up_bias, down_bias):
        return mlp(x, up, down, up_bias=up_bias, down_bias=down_bias)

    results = []
    with dispatch.using(mlp="triton"):
        for function in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
            y = function(*leaves)
            results.append([y.detach(), *torch.autograd.grad(y.square().sum(), leaves)])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"up": torch.ones(8, 5)}, r"x \(2, 4\), up \(8, 5\), down \(3, 8\): wanted \(\.\.\., D\)"),
        ({"down": torch.ones(3, 7)}, r"down \(3, 7\): wanted"),
        ({"up_bias": torch.ones(3)}, r"up_bias is \(3,\): wanted \(8,\)"),
        ({"down_bias": torch.ones(8)}, r"down_bias is \(8,\): wanted \(3,\)"),
        ({"up": torch.ones(8, 4, dtype=HALF)}, "up is torch.bfloat16, x is torch.float32: wanted"),
        ({"x": torch.ones(2, 4, dtype=torch.int64)}, "x is torch.int64"),
        ({"down": torch.ones(3, 8, device="meta")}, "down is on meta, x on cpu"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message):
    given = {"x": torch.ones(2, 4), "up": torch.ones(8, 4), "down": torch.ones(3, 8)}
    with pytest.raises(ValueError, match=message):
        mlp(**given | change)


def test_a_second_derivative_is_refused():
    leaves = [x.requires_grad_() for x in inputs(2, 8, 32, 8, FULL, False)]
    y = by("triton")(*leaves)
    with pytest.raises(RuntimeError, match="mlp has no second derivative"):
        torch.autograd.grad(y.sum(), leaves, create_graph=True)
