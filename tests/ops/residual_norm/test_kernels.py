"""residual_norm: the Triton kernels beside the definition in fp64, by the 2x rule, and as an op of torch."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dnagpt_fast.ops import dispatch, residual_norm
from dnagpt_fast.ops.residual_norm import launch
from tests import bf16_in_the_interpreter
from tests.closeness import assert_function_no_worse_than_naive

pytestmark = pytest.mark.usefixtures("poisoned_memory")
HALF, FULL = torch.bfloat16, torch.float32
# one row of one element; a prime width in several tiles of rows; one row more than a tile; the published widths
SHAPES = [(1, 1), (67, 13), (33, 128), (5, 768), (3, 2048)]


def inputs(rows, width, stream, branch, norm, bias):
    made = [torch.randn(2, rows, width, generator=torch.Generator().manual_seed(1)).to(stream)]
    made.append(torch.randn(2, rows, width, generator=torch.Generator().manual_seed(2)).to(branch))
    made.append((1 + 0.3 * torch.randn(width, generator=torch.Generator().manual_seed(3))).to(norm))
    if bias:
        made.append(torch.randn(width, generator=torch.Generator().manual_seed(4)).to(norm))
    return made


def check(rows, width, stream=FULL, branch=FULL, norm=FULL, out=FULL, bias=False):
    def by(implementation):
        def run(*tensors):
            dtype = torch.float64 if tensors[0].dtype == torch.float64 else out
            with dispatch.using(residual_norm=implementation):
                return residual_norm(*tensors, dtype=dtype)

        return run

    tensors = inputs(rows, width, stream, branch, norm, bias)
    cotangents = [torch.randn(2, rows, width, generator=torch.Generator().manual_seed(i)) for i in (5, 6)]
    names = ["s", "y", "d stream", "d branch", "d weight", "d bias"][: 2 + len(tensors)]
    assert_function_no_worse_than_naive(by("triton"), by("reference"), tensors, cotangents, names)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_in_float32(shape, bias):
    check(*shape, bias=bias)


# training under autocast with either stream, weights gathered in bf16, and a model in half precision
@pytest.mark.parametrize(
    ("stream", "branch", "norm", "out"),
    [(FULL, HALF, FULL, HALF), (HALF, HALF, FULL, HALF), (FULL, HALF, HALF, HALF), (HALF, HALF, HALF, HALF)],
)
def test_in_bfloat16(stream, branch, norm, out):
    with bf16_in_the_interpreter.corrected():
        check(40, 96, stream, branch, norm, out, bias=True)


def test_in_float16_and_float64():
    check(7, 50, torch.float16, torch.float16, torch.float16, torch.float16)
    check(7, 50, torch.float64, torch.float64, torch.float64, torch.float64, bias=True)


def test_more_row_tiles_than_programs_are_summed(monkeypatch):
    monkeypatch.setattr(launch, "PROGRAMS", 3)
    check(150, 13, bias=True)


@pytest.mark.parametrize("used", [0, 1])
def test_one_output_alone_has_a_gradient(used):
    def gradients(implementation):
        leaves = [x.double().requires_grad_() for x in inputs(5, 20, FULL, FULL, FULL, True)]
        with dispatch.using(residual_norm=implementation):
            made = residual_norm(*leaves)[used]
        return torch.autograd.grad(made.square().sum(), leaves, materialize_grads=True)

    for ours, plain in zip(gradients("triton"), gradients("reference"), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


def test_the_same_bits_twice(monkeypatch):
    monkeypatch.setattr(launch, "PROGRAMS", 2)

    def run():
        leaves = [x.requires_grad_() for x in inputs(90, 24, FULL, FULL, FULL, True)]
        with dispatch.using(residual_norm="triton"):
            s, y = residual_norm(*leaves)
        return [s, y, *torch.autograd.grad((s * y).sum(), leaves)]

    assert all(map(torch.equal, run(), run()))


def test_no_rows():
    leaves = [x.requires_grad_() for x in inputs(0, 24, FULL, FULL, FULL, True)]
    with dispatch.using(residual_norm="triton"):
        s, y = residual_norm(*leaves)
    d_stream, *_, d_weight, d_bias = torch.autograd.grad(s.sum() + y.sum(), leaves)
    assert d_stream.shape == s.shape == y.shape == (2, 0, 24)
    assert not d_weight.any()
    assert not d_bias.any()


def test_the_dtype_of_y_is_that_of_autocast():
    tensors = inputs(3, 8, FULL, HALF, FULL, False)
    with torch.autocast("cpu", dtype=HALF):
        assert [x.dtype for x in residual_norm(*tensors)] == [FULL, HALF]
    assert [x.dtype for x in residual_norm(*tensors)] == [FULL, FULL]


def test_as_an_op_of_torch():
    stream, branch, weight, bias = inputs(3, 16, FULL, HALF, FULL, True)
    arguments = (stream.requires_grad_(), branch.requires_grad_(), weight.requires_grad_(), bias, 1e-5, HALF)
    with bf16_in_the_interpreter.corrected():
        kinds = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(launch.FORWARD.default, arguments, test_utils=kinds)
    with FakeTensorMode() as mode, dispatch.using(residual_norm="triton"):
        fakes = [mode.from_tensor(x) for x in (stream, branch, weight, bias)]
        s, y = residual_norm(*fakes, dtype=HALF)
        assert (s.dtype, y.dtype, y.shape) == (FULL, HALF, stream.shape)
        y.float().sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"branch": torch.ones(3, 4)}, r"stream \(2, 4\), branch \(3, 4\): wanted one shape"),
        ({"weight": torch.ones(5)}, r"weight is \(5,\): wanted \(4,\)"),
        ({"bias": torch.ones(5)}, r"bias is \(5,\): wanted \(4,\)"),
        ({"weight": torch.ones(4, dtype=torch.int64)}, "weight is torch.int64: wanted dtypes of"),
        ({"branch": torch.ones(2, 4, device="meta")}, "branch is on meta, stream on cpu"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message):
    given = {"stream": torch.ones(2, 4), "branch": torch.ones(2, 4), "weight": torch.ones(4), "bias": None}
    with pytest.raises(ValueError, match=message):
        residual_norm(**given | change)


def test_rows_that_are_too_wide_name_the_remedy():
    wide = torch.ones(1, launch.WIDEST + 1)
    with (
        dispatch.using(residual_norm="triton"),
        pytest.raises(ValueError, match=r'residual_norm="reference"'),
    ):
        residual_norm(wide, wide, wide[0])


def test_a_second_derivative_is_refused():
    leaves = [x.requires_grad_() for x in inputs(2, 8, FULL, FULL, FULL, False)]
    with dispatch.using(residual_norm="triton"):
        y = residual_norm(*leaves)[1]
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y.sum(), leaves, create_graph=True)
