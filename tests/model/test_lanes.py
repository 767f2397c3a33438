"""Lanes of a batch: kept on the device between looks of the host, or dropped one by one, the tokens are the same."""

import functools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dnagpt_fast import KmerTokenizer
from dnagpt_fast.model import generation
from dnagpt_fast.model.generation import (
    GlobalDraws,
    SamplingRules,
    SeededDraws,
    generate_sequences,
    most_likely,
)
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.lanes import Buffers, Lanes
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.sampling.settings import Choice
from tests.tiny import load_tiny

PROMPTS = [[21, 40], [21, 60, 70, 80], [22], [21, 40], [23] * 11]
SETTINGS = {"do_sample": True, "top_k": 150, "top_p": 0.95, "stop_ids": (99,)}


@pytest.fixture
def model():
    return load_tiny("tiny_bias").model()


def continued(model, monkeypatch, look, rules, new=(40, 3, 60, 17, 1)):
    """Tokens of each prompt; look: of the host; None: as on the CPU."""
    monkeypatch.setattr(generation, "Lanes", functools.partial(Lanes, look=look))
    draws = SeededDraws([(5, i, prompt) for i, prompt in enumerate(PROMPTS)])
    return generation.continue_sequences(Inference(model, pack=True), PROMPTS, new, rules, draws)


@pytest.mark.parametrize("crop_to", [None, 6])
def test_lanes_that_stay_give_the_tokens_of_lanes_that_are_dropped(model, monkeypatch, crop_to):
    """Past max_len, with stop tokens, unequal lengths and ends: looks at each token, at 4 and at 16."""
    rules = SamplingRules(**SETTINGS, crop_to=crop_to)
    wanted = continued(model, monkeypatch, None, rules)
    assert len({len(tokens) for tokens in wanted}) > 3
    assert max(map(len, wanted)) > model.max_len
    for look in (4, 16):
        assert continued(model, monkeypatch, look, rules) == wanted


def test_a_step_reads_no_value_on_the_host(model):
    """What a capture as a CUDA graph needs: no .item(), no copy from or to the host, and the same memory each time."""

    class Refuses(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func._schema.name
            assert name not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"), name
            assert name != "aten::_to_copy" or "device" not in (kwargs or {}), name
            return func(*args, **(kwargs or {}))

    inference = Inference(model.to("meta"))
    for how in ("uniform", "race"):
        choice = Choice(0.9, 0, 0.0, how, torch.ones(model.vocab_size, dtype=torch.bool, device="meta"))
        buffers = Buffers(inference, 3, 20, choice, (20,), 8)
        tensors = {name: x for name, x in vars(buffers).items() if isinstance(x, torch.Tensor)}
        lengths = buffers.cache.lengths
        kernels = {"attention_decode": "sdpa", "attention_extend": "separate", "linear": "torch"}
        with dispatch.using(next_tokens="reference", advance_lanes="reference", **kernels), Refuses():
            buffers.step()
        assert all(getattr(buffers, name) is x for name, x in tensors.items())
        assert buffers.cache.lengths is lengths


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "draws", [pytest.param("most likely", marks=SLOW), "uniform", pytest.param("race", marks=SLOW)]
)
def test_kernels_in_the_interpreter_give_the_same_tokens(model, monkeypatch, draws):
    """The step as on a GPU: fixed lanes, our kernels, padded rows. A few tokens, across max_len."""
    prompts, new = [[21] * (model.max_len - 1), [22, 40]], [3, 3]
    rules = SamplingRules(do_sample=draws != "most likely")

    def run(look, **kernels):
        torch.manual_seed(2)
        monkeypatch.setattr(generation, "Lanes", functools.partial(Lanes, look=look))
        draw = {
            "most likely": most_likely,
            "uniform": SeededDraws([(5, i, p) for i, p in enumerate(prompts)]),
            "race": GlobalDraws(),
        }[draws]
        with dispatch.using(**kernels):
            return generation.continue_sequences(Inference(model), prompts, new, rules, draw)

    ours = run(16, next_tokens="triton", advance_lanes="triton", attention_extend="separate")
    assert ours == run(16)


def test_buffers_and_their_graph_serve_the_next_batch(model, monkeypatch):
    """A graph is captured once for batches of one shape, and for a smaller last batch; here a capture is counted."""
    captures, made = [], []
    monkeypatch.setattr(Buffers, "capture", lambda self: captures.append(self))

    class Graphed(Lanes):
        def __init__(self, *arguments):
            super().__init__(*arguments, look=16)

        def _buffers(self, *arguments):
            self._graph = True
            found = super()._buffers(*arguments)
            made.append(found)
            return found

    tokenizer = KmerTokenizer(3)
    settings = {
        "max_new_tokens": 20,
        "num_samples": 5,
        "batch_size": 2,
        "seed": 3,
        "top_p": 0.9,
        "bases_only": True,
    }
    wanted = [one.new_ids for one in generate_sequences(model, tokenizer, ["<R>ACG"], **settings)]
    monkeypatch.setattr(generation, "Lanes", Graphed)
    found = [one.new_ids for one in generate_sequences(model, tokenizer, ["<R>ACG"], **settings)]
    assert found == wanted
    assert len(made) == 3
    assert len({id(buffers) for buffers in made}) == 1
    assert {id(buffers) for buffers in captures} == {id(made[0])}


def test_logits_that_are_not_finite_are_reported(model):
    with torch.no_grad():
        model.mlm_head[3].weight[5] = torch.nan
    with (
        dispatch.using(next_tokens="triton", advance_lanes="triton"),
        pytest.raises(
            RuntimeError, match="next token of sequence 0 cannot be drawn: its logits are not finite"
        ),
    ):
        model.generate(torch.tensor([[21, 40]]), 3)
