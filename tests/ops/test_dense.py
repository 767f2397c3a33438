"""The matrix products of a training step against fp64, and what they keep for the backward pass."""

import pytest
import torch
import torch.nn.functional as F

from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.dense import dense
from tests.closeness import assert_function_no_worse_than_naive

NAMES = ("y", "dx", "dW", "db")


def plain(x, weight, bias=None, *, gelu=False):
    return F.linear(F.gelu(x, approximate="tanh") if gelu else x, weight, bias)


# one row; a vector width and one more; primes; more dimensions; a real width
@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 16, 17), (37, 13, 29), (2, 3, 5, 7), (96, 768, 64)])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("implementation", ["onednn", "torch"])
def test_output_and_gradients_against_fp64(shape, gelu, with_bias, implementation):
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
