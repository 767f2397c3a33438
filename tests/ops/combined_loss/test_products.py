"""The loss with its gradient in the forward pass: chunks, the compact form, when it runs, and what it launches."""

import math
from unittest import mock

import pytest
import torch

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.combined_loss import launch, products
from dnagpt_fast.ops.combined_loss.occurring import equalize_rest, occurring_tokens
from dnagpt_fast.ops.combined_loss.op import combined_loss
from dnagpt_fast.vocab import Vocabulary
from tests.closeness import assert_no_worse_than_naive
from tests.ops.combined_loss.cases import assert_implementation_close, make_case, run

pytestmark = pytest.mark.usefixtures("poisoned_memory")

ALL = {"label_smoothing": 0.2, "z_loss": 1e-3, "soft_cap": 2.0}


# smaller than a block of columns; one more than two blocks of 1,024, so that a row takes three
@pytest.mark.parametrize(
    ("shape", "dtype", "settings"),
    [
        ((9, 23, 16), torch.float16, ALL),
        ((9, 23, 16), torch.bfloat16, {}),
        ((7, 2049, 16), torch.float32, {"z_loss": 1e-3, "reduction": "sum"}),
    ],
    ids=str,
)
def test_every_output_and_gradient_against_fp64(shape, dtype, settings):
    assert_implementation_close(make_case(*shape, dtype=dtype, **settings), "products")


def test_chunks_add_up(monkeypatch):
    """One, and three of which the last is short: dW and db are added to what the earlier chunks left."""
    case = make_case(21, 30, 16)
    truth, naive = run(case.to(torch.float64), "reference"), run(case, "reference")
    monkeypatch.setattr(products, "rows_a_chunk", lambda rows, vocab, itemsize: 9)
    ours = run(case, "products")
    for name in truth:
        assert_no_worse_than_naive(name, ours[name], naive[name], truth[name])


def test_the_size_of_a_chunk():
    assert products.rows_a_chunk(32_768, 19_564, 2) == 3072  # eleven chunks, 115 MiB
    assert products.rows_a_chunk(4096, 19_564, 2) == 2048
    assert products.rows_a_chunk(300, 19_564, 2) == 300
    assert (
        products.rows_a_chunk(32_768, 4104, 2) == 10_880 or products.rows_a_chunk(32_768, 4104, 2) == 11_008
    )
    for rows in (1, 127, 129, 5000, 32_768):
        size = products.rows_a_chunk(rows, 19_564, 4)
        assert size * products.aligned(19_564) * 4 <= launch.MEMORY_BYTES
        assert math.ceil(rows / size) * size >= rows


def test_the_tokens_that_occur():
    """The compact form against the reference over all 1,089 tokens of k = 4, in every gradient."""
    vocabulary = Vocabulary(4)
    tokens = occurring_tokens(vocabulary, [3, 19])
    case = make_case(12, len(vocabulary), 16, spread=3.0, label_smoothing=0.1)
    equalize_rest(case.tensors["weight"], case.tensors["bias"], tokens)
    case.tensors["targets"][:] = tokens.tokens[torch.randint(0, 258, (12,))]
    truth, naive = run(case.to(torch.float64), "reference"), run(case, "reference")
    ours = run(case.with_(occurring=tokens), "products")
    for name in truth:
        assert_no_worse_than_naive(name, ours[name], naive[name], truth[name])


def test_where_it_runs_and_where_the_recomputing_kernels_do():
    x, w, t = torch.randn(3, 8, requires_grad=True), torch.randn(20, 8), torch.tensor([1, 2, -100])
    ran = []
    real = torch.ops.dnagpt_fast.combined_loss_products

    def recorded(*arguments):
        ran.append(True)
        return real(*arguments)

    with (
        dispatch.using(combined_loss="products"),
        mock.patch.object(torch.ops.dnagpt_fast, "combined_loss_products", recorded),
    ):
        for options, expected in (
            ({}, 1),
            ({"reduction": "sum"}, 1),
            ({"reduction": "none"}, 0),
            ({"skip_below": 2**-24}, 0),
        ):
            ran.clear()
            combined_loss(x, w, t, **options)
            assert len(ran) == expected, options
        ran.clear()
        with torch.no_grad():
            combined_loss(x, w, t)
        combined_loss(x.detach(), w, t)
        assert not ran


def test_gradients_are_those_of_the_recomputing_kernels_under_autocast():
    """fp32 parameters, products in bf16: the rounding of z is the only difference."""
    case = make_case(20, 60, 16)
    with torch.autocast("cpu", torch.bfloat16):
        ours, kernels = run(case, "products"), run(case, "triton")
    for name, value in kernels.items():
        assert ours[name].dtype == torch.float32
        assert (ours[name] - value).abs().max() <= 0.02 * value.abs().max(), name
    assert not torch.equal(ours["log_probs"], kernels["log_probs"])


def test_one_row_that_is_no_token_gives_nan():
    x, w, t = torch.randn(3, 8, requires_grad=True), torch.randn(20, 8), torch.tensor([1, 25, 3])
    with dispatch.using(combined_loss="products"):
        total = combined_loss(x, w, t).total
    total.backward()
    assert total.isnan()
    assert x.grad[1].isnan().all()
    assert x.grad[[0, 2]].isfinite().all()


@pytest.mark.parametrize("all_ignored", [True, False])
def test_no_rows(all_ignored):
    x = torch.randn(3 if all_ignored else 0, 8, requires_grad=True)
    w = torch.randn(20, 8, requires_grad=True)
    t = torch.full((len(x),), -100)
    with dispatch.using(combined_loss="products"):
        total = combined_loss(x, w, t).total
    total.backward()
    assert total == 0
    assert not x.grad.any()
    assert not w.grad.any()


@pytest.mark.parametrize(("entries", "wanted"), [(4103, "triton"), (19_564, "products")])
def test_the_rule_takes_the_recomputing_kernels_for_few_tokens(entries, wanted):
    hidden, targets = torch.zeros(2, 4, requires_grad=True), torch.tensor([0, 1])
    with (
        dispatch.using(combined_loss="rule"),
        mock.patch.object(products, "combined_loss_triton", side_effect=RuntimeError("triton")),
        mock.patch.object(products, "combined_loss_products", side_effect=RuntimeError("products")),
        pytest.raises(RuntimeError, match=wanted),
    ):
        combined_loss(hidden, torch.zeros(entries, 4), targets)
