"""The sampling kernels compiled for three cards and run on the CPU: accesses checked, schedules shuffled."""

import pytest
import torch

from dnagpt_fast.ops.sampling.reference import advance_lanes_reference, next_tokens_reference
from dnagpt_fast.ops.sampling.settings import HOWS, Choice
from dnagpt_fast.ops.sampling.token_kernels import advance_lanes_triton, next_tokens_triton
from tests import ptx

pytestmark = [pytest.mark.ptx, pytest.mark.usefixtures("poisoned_memory")]
compiled = pytest.mark.skipif(
    ptx.interpreting(), reason="run by the test that starts a process that compiles"
)

WRITTEN = {
    "sampling_next_tokens_kernel": {"p_token"},
    "sampling_advance_lanes_kernel": {"p_left", "p_newest", "p_length", "p_made", "p_turn"},
}
CARDS = ("sm_80", "sm_90", "sm_100")


@pytest.mark.skipif(not ptx.interpreting(), reason="this process already compiles")
def test_in_a_process_that_compiles():
    ptx.rerun_without_the_interpreter(__file__)


@compiled
@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.0), (50, 0.9)])
def test_next_tokens(how, top_k, top_p, card):
    """Two blocks of the vocabulary, the second partly empty."""
    rows, vocab = 2, 4100
    logits = 3 * torch.randn(rows, vocab)
    allowed = torch.rand(vocab) < 0.8
    numbers = {
        "most likely": None,
        "uniform": torch.rand(rows, dtype=torch.float64),
        "race": torch.empty(rows, vocab).exponential_(),
    }[how]
    choice = Choice(0.8, top_k, top_p, how, allowed)
    for seed in (0, 1):
        with ptx.compiled_on_the_cpu(WRITTEN, seed, card=card) as ran:
            tokens = next_tokens_triton(logits, choice, numbers)
        assert [*ran] == ["sampling_next_tokens_kernel"]
        assert tokens.equal(next_tokens_reference(logits, choice, numbers))


@compiled
@pytest.mark.parametrize("card", CARDS)
def test_advance_lanes(card):
    lanes = 150
    tokens, stops = torch.randint(-1, 30, (lanes,)), torch.tensor([3, 20])
    state = [
        *(torch.randint(0, 3, (lanes,)) for _ in range(3)),
        torch.zeros(2, lanes, dtype=torch.int64),
        torch.ones(1, dtype=torch.int64),
    ]
    plain = [x.clone() for x in state]
    advance_lanes_reference(tokens, stops, *plain)
    for seed in (0, 1):
        ours = [x.clone() for x in state]
        with ptx.compiled_on_the_cpu(WRITTEN, seed, card=card):
            advance_lanes_triton(tokens, stops, *ours)
        assert all(map(torch.equal, ours, plain))
