"""Rows as on a GPU, run on the CPU: sums and GELU inside the products, one attention call for many lengths."""

import pytest
import torch
import torch.nn.functional as F

from dnagpt_fast.model import inference as module
from dnagpt_fast.model.inference import Inference, rows_of_a_pass
from tests.tiny import NAMES, load_tiny


@pytest.fixture(params=NAMES)
def model(request):
    return load_tiny(request.param).model()


def as_on_a_gpu(model, monkeypatch) -> Inference:
    def product(bias, rows, weight, *, use_gelu):
        assert use_gelu
        return F.gelu(torch.addmm(bias, rows, weight), approximate="tanh")  # the CPU's own has another GELU

    monkeypatch.setattr(torch, "_addmm_activation", product)
    made = Inference(model)
    made._in_place = True
    return made


def some_sequences(model, count):
    lengths = [1 + 7 * i % model.max_len for i in range(count)]
    return [torch.randint(0, 189, (n,)).tolist() for n in lengths]


def test_blocks_in_place_give_the_states_of_every_layer(model, monkeypatch):
    sequences, layers = some_sequences(model, 6), list(range(model.num_layers + 1))
    wanted = Inference(model).hidden_layers(sequences, layers)
    found = as_on_a_gpu(model, monkeypatch).hidden_layers(sequences, layers)
    for theirs, ours in zip(wanted, found, strict=True):
        for a, b in zip(theirs, ours, strict=True):
            torch.testing.assert_close(b, a, atol=2e-5, rtol=2e-5)


def test_many_lengths_share_one_attention_call(model, monkeypatch):
    sequences = some_sequences(model, 9)
    wanted = Inference(model).hidden_states(sequences)
    called = []
    real = module.attention

    def counted(*tensors, **options):
        called.append(options)
        return real(*tensors, **options)

    class Triton:
        name = "triton"

    monkeypatch.setattr(module, "packs_unequal_lengths", lambda device: True)
    monkeypatch.setattr(module, "implementation_for", lambda q, masked: Triton)
    monkeypatch.setattr(module, "attention", counted)
    found = Inference(model).hidden_states(sequences)
    assert len(called) == model.num_layers
    assert all("cu_seqlens" in options for options in called)
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(b, a, atol=2e-5, rtol=2e-5)


def test_rows_of_a_pass_on_a_gpu_are_few_numbers():
    cuda = torch.device("cuda")
    assert {rows_of_a_pass(n, cuda) for n in range(1, 5000)} == {*range(16, 257, 16), *range(512, 5121, 256)}
    assert [rows_of_a_pass(n, torch.device("cpu")) for n in (1, 300)] == [16, 304]
