"""Tests of the 2x rule: it must detect typical errors of kernels."""

import pytest
import torch

from tests.closeness import assert_function_no_worse_than_naive

T = 17  # a prime, so that no tile divides it


def causal_softmax(x, w, offset=0, sign=1.0):
    scores = x @ w @ x.transpose(-1, -2) * sign
    mask = torch.ones(T, T, dtype=torch.bool).tril(offset)
    return torch.softmax(scores.masked_fill(~mask, float("-inf")), -1) @ x


def with_backward(change):
    """causal_softmax whose gradients (dx, dw) pass through `change`."""

    class Changed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return causal_softmax(x, w)

        @staticmethod
        def backward(ctx, grad):
            x, w = (t.detach().requires_grad_() for t in ctx.saved_tensors)
            with torch.enable_grad():
                return change(*torch.autograd.grad(causal_softmax(x, w), (x, w), grad))

    return Changed.apply


def hold(kernel, dtype=torch.float32):
    x, w = torch.randn(T, 8, dtype=dtype), torch.randn(8, 8, dtype=dtype)
    assert_function_no_worse_than_naive(
        kernel, causal_softmax, [x, w], [torch.randn(T, 8)], ["o", "dx", "dw"]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_formula_itself_passes(dtype):
    hold(causal_softmax, dtype)


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (with_backward(lambda dx, dw: (dx, None)), "dw: missing"),
        (with_backward(lambda dx, dw: (dx, -dw)), "dw: largest error"),
        (lambda x, w: causal_softmax(x, w, offset=1), "o: largest error"),
        (lambda x, w: causal_softmax(x, w, offset=-1).nan_to_num(), "o: largest error"),
        (lambda x, w: causal_softmax(x, w) * float("nan"), "o: not finite"),
        (lambda x, w: causal_softmax(x, w)[:-1], "output 0: shape"),
        (lambda x, w: causal_softmax(x.half(), w.half()).float(), "o: largest error"),
        (lambda x, w: causal_softmax(x, w).half(), "o: dtype"),
    ],
)
def test_typical_errors_of_kernels_are_detected(kernel, said):
    with pytest.raises(AssertionError, match=f"^{said}"):
        hold(kernel)
