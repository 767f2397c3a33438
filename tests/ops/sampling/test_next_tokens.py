"""next_tokens and advance_lanes: the kernels against plain torch, and what they do at the edges."""

import pytest
import torch

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.sampling.op import advance_lanes, next_tokens
from dnagpt_fast.ops.sampling.reference import filter_logits
from dnagpt_fast.ops.sampling.settings import Choice

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def both(logits, choice, numbers=None):
    found = []
    for name in ("triton", "reference"):
        with dispatch.using(next_tokens=name):
            found.append(next_tokens(logits, choice, numbers))
    return found


HOWS = ("most likely", "uniform", "race")
FILTERS = ((0, 0.0), (7, 0.0), (0, 0.9), (50, 0.5), (10**6, 1.0))


def check_against_plain_torch(rows, vocab, how, top_k, top_p):
    logits = 3 * torch.randn(rows, vocab)
    allowed = torch.rand(vocab) < 0.8
    allowed[logits.argmax(-1)] = True
    numbers = {
        "most likely": None,
        "uniform": torch.rand(rows, dtype=torch.float64),
        "race": torch.empty(rows, vocab).exponential_(),
    }[how]
    for permitted in (None, allowed) if vocab > 189 else (allowed,):
        ours, plain = both(logits, Choice(0.8, top_k, top_p, how, permitted), numbers)
        assert ours.equal(plain)


# 189 is the tests' vocabulary
@pytest.mark.parametrize(
    ("how", "top_k", "top_p"), [("most likely", 0, 0.0), ("race", 0, 0.0), ("uniform", 50, 0.9)]
)
def test_the_kernel_chooses_the_tokens_of_plain_torch(how, top_k, top_p):
    check_against_plain_torch(1, 189, how, top_k, top_p)


@pytest.mark.slow
@pytest.mark.parametrize("vocab", [5, 19_564])
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("top_k", "top_p"), FILTERS)
def test_the_kernel_chooses_the_tokens_of_plain_torch_with_every_filter(vocab, how, top_k, top_p):
    """19,564 is the published vocabulary: five blocks of the kernel."""
    check_against_plain_torch(1, vocab, how, top_k, top_p)


def test_ties_at_the_edge_of_top_p_keep_the_lowest_ids():
    logits = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])
    p = logits.softmax(-1)[0]
    # after token 1 one more of the four equal tokens is within the limit, and the next one exceeds it
    choice = Choice(top_p=float(p[1] + 1.5 * p[0]), how="uniform")
    u = torch.tensor([0.0, 0.3, 0.999], dtype=torch.float64)
    with dispatch.using(next_tokens="triton"):
        drawn = set(next_tokens(logits.expand(3, 5).contiguous(), choice, u).tolist())
    kept = int(filter_logits(logits, 0, choice.top_p).isfinite().sum())
    assert drawn == {0, 1, 2}
    assert kept == 3


def test_top_k_keeps_the_values_that_equal_the_kth_and_takes_both_zeros_for_one():
    logits = torch.tensor([[2.0, 0.0, -0.0, -1.0]])
    u = torch.tensor([0.0, 0.82, 0.999], dtype=torch.float64)
    ours, plain = both(logits.expand(3, 4).contiguous(), Choice(top_k=2, how="uniform"), u)
    assert ours.tolist() == plain.tolist() == [0, 1, 2]


def test_a_draw_at_the_upper_end_is_a_token_with_a_probability():
    logits = torch.tensor([[0.2, 0.8, -torch.inf]])
    ours, plain = both(logits, Choice(how="uniform"), torch.ones(1, dtype=torch.float64))
    assert ours.tolist() == plain.tolist() == [1]


def test_rows_that_cannot_be_sampled_are_marked_by_the_kernel():
    nothing = torch.full((4, 9), -torch.inf)
    nothing[1] = 0.0
    nothing[1, 3] = torch.nan
    nothing[2] = 0.0
    nothing[2, 3] = torch.inf
    nothing[3] = 1.0
    for how, numbers in (("most likely", None), ("uniform", torch.rand(4, dtype=torch.float64))):
        with dispatch.using(next_tokens="triton"):
            found = next_tokens(nothing, Choice(how=how), numbers)
        assert found[:3].tolist() == [-1, -1, -1]
        assert found[3] >= 0


def test_a_row_does_not_depend_on_the_batch():
    logits, numbers = torch.randn(2, 189), torch.rand(2, dtype=torch.float64)
    choice = Choice(1.1, 0, 0.0, "uniform")
    with dispatch.using(next_tokens="triton"):
        whole = next_tokens(logits, choice, numbers)
        for b in range(2):
            assert next_tokens(logits[b : b + 1], choice, numbers[b : b + 1]).equal(whole[b : b + 1])
    # a view of wider rows, and columns
    wide = torch.cat([logits, logits], 1)
    assert both(wide[:, :189], choice, numbers)[0].equal(whole)
    assert both(logits.t().contiguous().t(), choice, numbers)[0].equal(whole)


@pytest.mark.parametrize("lanes", [1, 7, 300])
def test_lanes_advance_as_in_plain_torch(lanes):
    tokens = torch.randint(-1, 30, (lanes,))
    stops = torch.tensor([3, 20])
    states = []
    for name in ("triton", "reference"):
        torch.manual_seed(1)
        left, newest, lengths = (torch.randint(0, 3, (lanes,)) for _ in range(3))
        made, turn = torch.full((4, lanes), -7), torch.tensor([2])
        with dispatch.using(advance_lanes=name):
            advance_lanes(tokens, stops, left, newest, lengths, made, turn)
            advance_lanes(tokens.flip(0), stops[:0], left, newest, lengths, made, turn)
        states.append((left, newest, lengths, made, turn))
    for ours, plain in zip(*states, strict=True):
        assert ours.equal(plain)
    assert (states[0][3][:2] == -7).all()
    assert states[0][4] == 4


def test_what_a_token_changes():
    tokens = torch.tensor([11, 12, 13, 14, -1])
    left, newest = torch.tensor([5, 5, 1, 0, 5]), torch.tensor([1, 1, 1, 1, 1])
    lengths, made, turn = (
        torch.tensor([9, 9, 9, 0, 9]),
        torch.zeros(1, 5, dtype=torch.int64),
        torch.tensor([0]),
    )
    advance_lanes(tokens, torch.tensor([12]), left, newest, lengths, made, turn)
    assert made[0].tolist() == [11, -1, 13, -1, -2]
    assert left.tolist() == [4, 0, 0, 0, 0]
    assert newest.tolist() == [11, 0, 0, 0, 0]
    assert lengths.tolist() == [9, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3), Choice()), r"floating \(B, V\)"),
        ((torch.zeros(1, 3), Choice(how="best")), "how = 'best'"),
        ((torch.zeros(1, 3), Choice(how="uniform")), r"wanted \(1,\)"),
        ((torch.zeros(1, 3), Choice(how="uniform"), torch.zeros(1)), "wanted float64"),
        ((torch.zeros(1, 3), Choice(allowed=torch.zeros(3))), "wanted bool"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        next_tokens(*arguments)
