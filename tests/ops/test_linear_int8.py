"""ops.linear_int8: torch's product against the definition, its error, and rows that do not depend on the others."""

import pytest
import torch

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.linear_int8 import linear_int8, quantize_rows

# (D_in, D_out): a product of a 0.1B block, a head of the tiny model, and sizes that no block size divides.
SHAPES = [(768, 96), (48, 189), (101, 37)]


def problem(shape, rows):
    generator = torch.Generator().manual_seed(0)
    d_in, d_out = shape
    x, weight, bias = (torch.randn(n, generator=generator) for n in ((rows, d_in), (d_out, d_in), (d_out,)))
    return x, *quantize_rows(weight), bias, weight


@pytest.mark.parametrize("shape", SHAPES)
def test_torch_s_product_is_the_reference_to_the_last_bit(shape):
    x, weight, scale, bias, _ = problem(shape, 33)
    for of_row in (bias, None):
        with dispatch.using(linear_int8="reference"):
            wanted = linear_int8(x, weight, scale, of_row)
        assert torch.equal(linear_int8(x, weight, scale, of_row), wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_is_that_of_two_roundings(shape):
    """x and W are off by at most half a step of their row: |error| <= sum |x| s_W / 2 + |W| s_x / 2 + s_x s_W / 4."""
    x, weight, scale, bias, exact = problem(shape, 33)
    step_x, step_w = x.abs().amax(1, keepdim=True) / 127, scale.t()
    bound = x.abs().sum(1, keepdim=True) * step_w / 2 + exact.abs().sum(1) * step_x / 2
    bound += shape[0] * step_x * step_w / 4
    error = (linear_int8(x, weight, scale, bias).double() - (x.double() @ exact.double().t() + bias)).abs()
    assert (error <= bound * 1.0001).all()
    assert error.max() > 1e-4  # it is int8


def test_a_row_does_not_depend_on_the_others_nor_on_its_place():
    x, weight, scale, bias, _ = problem((101, 37), 80)
    x[3] *= 1e4  # one scale for all rows would ruin the others
    whole = linear_int8(x, weight, scale, bias)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    assert torch.equal(linear_int8(x[order], weight, scale, bias), whole[order])
    for rows in (1, 2, 15, 16, 17):
        assert torch.equal(linear_int8(x[:rows], weight, scale, bias), whole[:rows])


def test_rows_of_zeros_and_extremes():
    x = torch.tensor([[0.0, 0.0], [1e30, -1e30], [1e-30, 0.0]])
    quantized, scale = quantize_rows(x)
    assert quantized.tolist() == [[0, 0], [127, -127], [127, 0]]
    torch.testing.assert_close(quantized * scale, x)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_hidden(value):
    x, weight, scale, bias, exact = problem((48, 20), 3)
    x[1, 7] = value
    found = linear_int8(x, weight, scale, bias)
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()
    exact[4, 2] = value
    found = linear_int8(x, *quantize_rows(exact), bias)
    assert found[:, 4].isnan().all()
    assert found[0, :4].isfinite().all()


def test_wrong_arguments_are_refused():
    x, weight, scale, bias, exact = problem((48, 20), 16)
    with pytest.raises(ValueError, match=r"wanted \(R, D_in\)"):
        linear_int8(x[:, :47], weight, scale, bias)
    with pytest.raises(ValueError, match=r"weight torch\.float32"):
        linear_int8(x, exact, scale, bias)
