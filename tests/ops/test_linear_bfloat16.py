"""ops.linear_bfloat16: torch's product against the definition, and rows that do not depend on the others."""

import pytest
import torch

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.linear_bfloat16 import ROWS, linear_bfloat16

SHAPES = [(768, 96), (48, 189), (101, 37)]


def problem(shape, rows):
    generator = torch.Generator().manual_seed(0)
    d_in, d_out = shape
    x, weight, bias = (torch.randn(n, generator=generator) for n in ((rows, d_in), (d_out, d_in), (d_out,)))
    return x, weight.bfloat16(), bias


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_is_one_rounding_of_the_definition_s(shape):
    """The sum may be rounded to the neighbour in bfloat16, 2^-8 of the value, besides the error of a sum in fp32."""
    x, weight, bias = problem(shape, 33)
    with dispatch.using(linear_bfloat16="reference"):
        wanted = linear_bfloat16(x, weight, bias)
    got = linear_bfloat16(x, weight, bias)
    assert got.dtype == torch.float32
    assert ((got - wanted).abs() <= 2**-8 * (wanted - bias).abs() + 1e-6 * shape[0]).all()
    exact = x.bfloat16().double() @ weight.double().t() + bias
    assert 1e-4 < (got - exact).abs().max() < 2**-8 * (exact - bias).abs().max()


def test_a_row_does_not_depend_on_the_others_nor_on_its_place():
    x, weight, bias = problem((768, 96), 5 * ROWS + 3)
    whole = linear_bfloat16(x, weight, bias)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert torch.equal(linear_bfloat16(x[order], weight, bias), whole[order])
    for rows in (1, 2, ROWS - 1, ROWS, ROWS + 1):
        assert torch.equal(linear_bfloat16(x[:rows], weight, bias), whole[:rows])


def test_wrong_arguments_are_refused():
    x, weight, bias = problem((48, 20), 16)
    with pytest.raises(ValueError, match=r"wanted \(R, D_in\)"):
        linear_bfloat16(x[:, :47], weight, bias)
    with pytest.raises(ValueError, match=r"weight torch\.float32"):
        linear_bfloat16(x, weight.float(), bias)
