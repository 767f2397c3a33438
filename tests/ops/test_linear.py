import pytest
import torch

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.linear import ROWS_MULTIPLE, linear, pack_weight

# (D_in, D_out): the four products of a 0.1B block, a head of the tiny model, and one that divides nothing.
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
    """Error of a sum of D_in products of unit normals: below 1e-6 * D_in in fp32 whatever the order of the sum."""
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
def test_a_row_does_not_feel_the_other_rows(shape, dtype):
    """Row counts that are multiples of ROWS_MULTIPLE, up to the largest a batch brings; rows in another order."""
    x, weight, bias = problem(shape, 1024, dtype=dtype)
    packed = pack_weight(weight)
    alone = linear(x[:ROWS_MULTIPLE], weight, bias)
    for rows in (32, 48, 80, 112, 208, 512, 1024):
        assert linear(x[:rows], weight, bias)[:ROWS_MULTIPLE].equal(alone)
        assert linear(x[:rows], weight, bias, packed=packed)[:ROWS_MULTIPLE].equal(alone)
    order = torch.randperm(1024, generator=torch.Generator().manual_seed(1))
    assert linear(x[order], weight, bias).equal(linear(x, weight, bias)[order])


def test_float64_and_views_are_taken():
    x, weight, bias = problem((48, 20), 16, dtype=torch.float64)
    assert linear(x, weight, bias).dtype == torch.float64
    x, weight, bias = problem((48, 20), 32)
    strided, turned = x[::2], weight.t().contiguous().t()
    torch.testing.assert_close(
        linear(strided, turned, bias), torch.nn.functional.linear(strided, weight, bias)
    )


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
