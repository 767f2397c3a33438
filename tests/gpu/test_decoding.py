"""Generation on a card: a step as one CUDA graph, step by step, and on the CPU; several batch shapes and ends."""

import pytest
import torch

from dnagpt_fast.model import generation
from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.generation import GlobalDraws, SamplingRules, SeededDraws, most_likely
from dnagpt_fast.model.inference import Inference, KeyValueCache
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention.extend import attention_extend
from dnagpt_fast.ops.sampling.op import next_tokens
from dnagpt_fast.ops.sampling.settings import Choice
from tests.closeness import assert_no_worse_than_naive

pytestmark = pytest.mark.gpu

SMALL = ModelConfig(1030, 128, 2, 4, 128, False)
DRAWS = {
    "most likely": lambda prompts: most_likely,
    "uniform": lambda prompts: SeededDraws([(5, i, prompt) for i, prompt in enumerate(prompts)]),
    "race": lambda prompts: GlobalDraws(),
}


def made_model(device, dtype=torch.float32, config=SMALL):
    torch.manual_seed(1)
    return DNAGPT.from_config(config).to(device, dtype).eval()


def some_prompts(count, longest):
    generator = torch.Generator().manual_seed(count)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(40, 1030, (n,), generator=generator).tolist() for n in lengths]


def continued(inference, prompts, new, rules, draws, decoding):
    torch.manual_seed(7)
    with dispatch.using(decoding=decoding):
        return generation.continue_sequences(inference, prompts, new, rules, DRAWS[draws](prompts))


# one lane, lanes that fill their rows of 16, lanes that do not
@pytest.mark.parametrize("lanes", [1, 10, 16, 37])
@pytest.mark.parametrize("draws", DRAWS)
def test_a_graph_gives_the_tokens_of_single_steps(device, lanes, draws):
    """Unequal prompts and ends, with stop tokens; twice on one Inference, so that the graph serves a second batch."""
    model, prompts = made_model(device), some_prompts(lanes, 40)
    new = [30 + 13 * i % 40 for i in range(lanes)]
    rules = SamplingRules(
        do_sample=draws != "most likely", temperature=0.9, top_k=200, top_p=0.9, stop_ids=(77, 500)
    )
    inference = Inference(model)
    graphed = continued(inference, prompts, new, rules, draws, "graph")
    assert graphed == continued(Inference(model), prompts, new, rules, draws, "eager")
    if device == "cuda":
        (buffers,) = inference.kept
        assert buffers._replay is not None
    assert continued(inference, prompts, new, rules, draws, "graph") == graphed
    assert len({len(tokens) for tokens in graphed}) > 1 or lanes == 1


@pytest.mark.parametrize("crop_to", [None, 20])
def test_past_max_len(device, crop_to):
    model, prompts = made_model(device), some_prompts(5, 120)
    rules = SamplingRules(do_sample=True, top_p=0.9, crop_to=crop_to)
    found = [
        continued(Inference(model), prompts, [60] * 5, rules, "uniform", decoding)
        for decoding in ("graph", "eager")
    ]
    assert found[0] == found[1]


def test_the_hidden_states_of_decoding_are_those_of_a_whole_pass(device):
    """In fp32, so that another GELU or a residual that is added twice would be seen."""
    model, inference = made_model(device), None
    inference = Inference(model)
    ids = torch.randint(40, 1030, (3, 60), device=device)
    cache = KeyValueCache.empty(model, 3, 60)
    inference.prefill(ids[:, :20].tolist(), cache)
    for t in range(20, 60):
        last = inference.decode(ids[:, t].contiguous(), cache)[:3]
    with torch.no_grad():
        wanted = model.double().hidden_states(ids)[:, -1]
    torch.testing.assert_close(last.double(), wanted, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("slots", "size"), [(300, 64), (1300, 32), (512, 128)])
def test_extending_caches_against_fp64(device, dtype, slots, size):
    if device == "cpu" and dtype is torch.bfloat16:
        pytest.skip("the CPU's implementation computes halves in float32")
    qkv = torch.randn(16, 3 * 4 * size, device=device).to(dtype)
    caches = torch.randn(2, 10, 4, slots, size, device=device).to(dtype)
    lengths = torch.randint(0, slots, (10,), device=device)

    def run(implementation, wide):
        changed = (caches.double() if wide else caches).clone()
        with dispatch.using(attention_extend=implementation, attention_decode="reference"):
            return attention_extend(qkv.double() if wide else qkv, *changed, lengths), changed

    ours, changed = run("triton" if device == "cuda" else "separate", False)
    naive, written = run("separate", False)
    assert_no_worse_than_naive("o", ours, naive, run("separate", True)[0])
    assert changed.equal(written)


@pytest.mark.parametrize("how", ["most likely", "uniform", "race"])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.0), (50, 0.0), (0, 0.9), (200, 0.5)])
def test_sampled_tokens_are_those_of_plain_torch(device, how, top_k, top_p):
    rows, vocab = 64, 19_564
    logits = 3 * torch.randn(rows, vocab, device=device)
    numbers = {
        "most likely": None,
        "uniform": torch.rand(rows, dtype=torch.float64, device=device),
        "race": torch.empty(rows, vocab, device=device).exponential_(),
    }[how]
    choice = Choice(0.8, top_k, top_p, how)
    found = []
    for name in ("triton" if device == "cuda" else "reference", "reference"):
        with dispatch.using(next_tokens=name):
            found.append(next_tokens(logits, choice, numbers))
    # a draw within 1e-6 of the edge between two tokens may differ
    assert (found[0] != found[1]).sum() <= 1


def test_a_generated_sequence_does_not_depend_on_its_batch(device):
    """The same number of rows of 16: the same bits of every product, so the same tokens (docs/inference.md)."""
    model, prompts = (
        made_model(device, torch.float32 if device == "cpu" else torch.bfloat16),
        some_prompts(12, 60),
    )
    rules = SamplingRules(do_sample=True, top_p=0.95)
    settings = ([50] * 12, rules)
    draws = SeededDraws([(5, i, prompt) for i, prompt in enumerate(prompts)])
    together = generation.continue_sequences(Inference(model), prompts, *settings, draws)
    draws = SeededDraws([(5, i, prompts[i]) for i in (4, 7)])
    alone = generation.continue_sequences(Inference(model), [prompts[4], prompts[7]], [50, 50], rules, draws)
    assert alone == [together[4], together[7]]
