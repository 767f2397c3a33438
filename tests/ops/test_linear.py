"""ops.linear: the products of inference against the definition, and those of a training step against fp64."""

import pytest
import torch
import torch.nn.functional as F

from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.linear import ROWS_MULTIPLE, dense, gelu, linear, pack_weight
from tests.closeness import assert_function_no_worse_than_naive, assert_no_worse_than_naive

# (D_in, D_out): the four products of a 0.1B block, a head of the tiny model, and sizes that no block size divides.
SHAPES = [(768, 2304), (3072, 768), (48, 189), (101, 37)]


def problem(shape, rows, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    d_in, d_out = shape
    made = [torch.randn(n, generator=generator) for n in ((rows, d_in), (d_out, d_in), (d_out,))]
    return [tensor.to(dtype) for tensor in made]


@pytest.mark.parametrize("name", dispatch.IMPLEMENTATIONS["linear"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_bias", [False, True])
def test_every_implementation_is_the_product(name, shape, with_bias):
    """The error of a sum of D_in products of unit normals is below 1e-6 * D_in in fp32, in any order of the sum."""
    x, weight, bias = problem(shape, 33)
    bias = bias if with_bias else None
    truth = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    with dispatch.using(linear=name):
        for packed in (None, pack_weight(weight)):
            assert (packed is None) or name == "onednn"
            got = linear(x, weight, bias, packed=packed)
            assert (got.double() - truth).abs().max() < 1e-6 * shape[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_is_independent_of_the_other_rows(shape, dtype):
    """Numbers of rows that are multiples of ROWS_MULTIPLE, up to the largest batch; rows in another order."""
    x, weight, bias = problem(shape, 1024, dtype=dtype)
    packed = pack_weight(weight)
    alone = linear(x[:ROWS_MULTIPLE], weight, bias)
    for rows in (32, 48, 80, 112, 208, 512, 1024):
        assert linear(x[:rows], weight, bias)[:ROWS_MULTIPLE].equal(alone)
        assert linear(x[:rows], weight, bias, packed=packed)[:ROWS_MULTIPLE].equal(alone)
    order = torch.randperm(1024, generator=torch.Generator().manual_seed(1))
    assert linear(x[order], weight, bias).equal(linear(x, weight, bias)[order])


@pytest.mark.parametrize("rows", [16, 32, 80, 96, 112, 144, 160, 1008])
def test_blocks_of_rows_are_the_product(monkeypatch, rows):
    """What older versions of oneDNN need is computed here by blocks, too: the bits of 16 rows at a time."""
    x, weight, bias = problem((48, 20), rows)
    monkeypatch.setattr("dnagpt_fast.ops.linear.rows_are_independent", lambda: False)
    sixteen = torch.cat([linear(part, weight, bias) for part in x.split(16)])
    assert linear(x, weight, bias, packed=pack_weight(weight)).equal(sixteen)


def test_float64_and_views_are_accepted():
    x, weight, bias = problem((48, 20), 16, dtype=torch.float64)
    assert linear(x, weight, bias).dtype == torch.float64
    x, weight, bias = problem((48, 20), 32)
    strided, turned = x[::2], weight.t().contiguous().t()
    torch.testing.assert_close(
        linear(strided, turned, bias), torch.nn.functional.linear(strided, weight, bias)
    )


@pytest.mark.parametrize("product", [linear, dense])
def test_a_bias_that_is_a_view_is_read_by_its_stride(product):
    x, weight, bias = problem((48, 64), 16)
    column = torch.stack([bias, torch.full_like(bias, 1e3)], 1)[:, 0]
    assert torch.equal(product(x.requires_grad_(), weight, column), product(x, weight, bias))


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(5, 6), "wanted \\(R, D_in\\)"),
        (torch.zeros(2, 3, 4), torch.zeros(5, 4), "wanted \\(R, D_in\\)"),
        (torch.zeros(3, 4), torch.zeros(5, 4, dtype=torch.float64), "float64"),
        (torch.zeros(3, 4), torch.zeros(5, 4, device="meta"), "meta"),
    ],
)
def test_what_does_not_fit_is_refused(x, weight, message):
    with pytest.raises(ValueError, match=message):
        linear(x, weight)


NAMES = ("y", "dx", "dW", "db")  # of dense


def plain(x, weight, bias=None, *, gelu=False):
    return F.linear(F.gelu(x, approximate="tanh") if gelu else x, weight, bias)


# one row; a vector width plus one; primes; more dimensions; a real width
@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 16, 17), (37, 13, 29), (2, 3, 5, 7), (96, 768, 64)])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("implementation", ["onednn", "torch"])
def test_output_of_dense_and_gradients_against_fp64(shape, gelu, with_bias, implementation):
    *rows, d_in, d_out = shape
    inputs = [
        torch.randn(*rows, d_in),
        torch.randn(d_out, d_in),
        *([torch.randn(d_out)] if with_bias else []),
    ]
    with dispatch.using(linear=implementation):
        assert_function_no_worse_than_naive(
            lambda *given: dense(*given, gelu=gelu),
            lambda *given: plain(*given, gelu=gelu),
            inputs,
            [torch.randn(*rows, d_out)],
            NAMES[: 1 + len(inputs)],
        )


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_a_frozen_input_gets_no_gradient(frozen):
    x, weight = torch.randn(5, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    {"x": x, "weight": weight}[frozen].requires_grad_(False)
    dense(x, weight, gelu=True).sum().backward()
    assert [t.grad is None for t in (x, weight)] == [frozen == "x", frozen == "weight"]


def saved_bytes(model, ids) -> int:
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden_states(ids)
    assert hidden.requires_grad
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return sum(size for place, size in kept.items() if place not in own)


def test_gelu_is_not_kept():
    model = DNAGPT(50, max_len=64, num_layers=3, num_heads=2, embedding_dim=32, bias=False)
    ids = torch.randint(50, (4, 64))
    with dispatch.using(linear="onednn"):
        ours = saved_bytes(model, ids)
    with dispatch.using(linear="torch"):
        torchs = saved_bytes(model, ids)
    assert torchs - ours == 3 * 4 * 64 * (4 * 32) * 4  # layers, rows, MLP width, bytes


def test_under_autocast_and_compile_it_is_torchs_own():
    x, weight = torch.randn(5, 3), torch.randn(4, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dense(x, weight).dtype == torch.bfloat16
    compiled = torch.compile(lambda x, w: dense(x, w, gelu=True), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, weight), plain(x, weight, gelu=True))


def test_gelu_against_fp64_and_at_its_ends():
    x = torch.linspace(-12, 12, 16 * 512).view(16, 512)
    truth = F.gelu(x.double(), approximate="tanh")
    assert_no_worse_than_naive("gelu", gelu(x), F.gelu(x, approximate="tanh"), truth)
    ends = torch.tensor([-1e30, -100.0, 0.0, 100.0, 1e30])
    assert gelu(ends).tolist() == [0, 0, 0, 100, torch.tensor(1e30).item()]
    assert gelu(torch.tensor([float("nan")])).isnan().all()
    assert torch.equal(gelu(x.double()), truth)


def test_the_bits_of_gelu_do_not_depend_on_the_other_rows():
    x = torch.randn(160, 192, generator=torch.Generator().manual_seed(3))
    whole = gelu(x)
    for first in range(0, 160, ROWS_MULTIPLE):
        assert torch.equal(gelu(x[first : first + ROWS_MULTIPLE]), whole[first : first + ROWS_MULTIPLE])
