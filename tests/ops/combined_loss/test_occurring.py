"""The loss over the tokens that occur: every value and gradient equals that of the full vocabulary."""

import math

import pytest
import torch

from dnagpt_fast.batch import IGNORE_INDEX, ROW_IGNORED, ROW_NEXT_TOKEN, ROW_ORDER
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.combined_loss.occurring import (
    OccurringTokens,
    compact_rows,
    equalize_rest,
    occurring_tokens,
    unequal_rest,
)
from dnagpt_fast.ops.combined_loss.op import combined_loss
from dnagpt_fast.vocab import Vocabulary, reserved_id
from tests.closeness import assert_no_worse_than_naive
from tests.ops.combined_loss.cases import Case, make_case, run

IMPLEMENTATIONS = ["reference", "chunked", "triton"]
VOCABULARY = Vocabulary(k=3)
ANSWERS = (reserved_id("S"), reserved_id("B"))
SETTINGS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "z-loss": {"z_loss": 1e-2},
    "soft-capped": {"soft_cap": 3.0},
    "all": {"label_smoothing": 0.2, "z_loss": 1e-3, "soft_cap": 2.0},
    "base-level": {"base_level": 0.4, "z_loss": 1e-3},
}


@pytest.fixture
def occurring() -> OccurringTokens:
    return occurring_tokens(VOCABULARY, ANSWERS)


def occurring_case(occurring: OccurringTokens, rows: int = 70, dtype=torch.float64, **settings) -> Case:
    """Rows of tokens without a target are equal; next-token rows have k-mers as targets, order rows labels."""
    case = make_case(rows, len(VOCABULARY), 24, dtype=dtype, **settings)
    equalize_rest(case.tensors["weight"], case.tensors["bias"], occurring)
    targets, kind = case.tensors["targets"], case.tensors["row_kind"]
    targets.copy_(occurring.tokens[torch.randint(0, 64, (rows,))])
    order = kind == ROW_ORDER
    targets[order] = torch.tensor(ANSWERS)[torch.randint(0, 2, (int(order.sum()),))]
    targets[3::8] = IGNORE_INDEX
    return case


def full(case: Case, k: int = 0) -> Case:
    return case.with_(k=VOCABULARY.k) if case.settings.get("base_level") else case


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_loss_and_every_gradient_are_those_of_the_full_vocabulary(occurring, implementation, settings, dtype):
    case = occurring_case(occurring, dtype=dtype, **settings)
    truth = run(full(case.to(torch.float64)), "reference")
    naive = run(full(case), "reference")
    ours = run(case.with_(occurring=occurring), implementation)
    for name in truth:
        if dtype == torch.float64:
            tolerance = 1e-7 if implementation == "triton" else 1e-12  # a kernel takes its settings as fp32
            torch.testing.assert_close(ours[name], truth[name], rtol=tolerance, atol=tolerance, msg=name)
        else:
            assert_no_worse_than_naive(name, ours[name], naive[name], truth[name])


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_other_reductions(occurring, implementation, reduction):
    case = occurring_case(occurring, reduction=reduction)
    truth, ours = run(case, "reference"), run(case.with_(occurring=occurring), implementation)
    for name in truth:
        torch.testing.assert_close(ours[name], truth[name], rtol=1e-7, atol=1e-7, msg=name)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_next_tokens_that_do_not_occur_are_ignored(occurring, implementation):
    """A row whose next token is a k-mer with N is ignored; ignored rows may have any target."""
    case = occurring_case(occurring)
    with_n = VOCABULARY.kmer_id("ANG")
    ignored = case.tensors["targets"].clone()
    for row in (0, 8, 17):
        assert case.tensors["row_kind"][row] == ROW_NEXT_TOKEN
        case.tensors["targets"][row], ignored[row] = with_n, IGNORE_INDEX
    nothing = case.tensors["row_kind"] == ROW_IGNORED
    case.tensors["targets"][nothing] = with_n
    ours = run(case.with_(occurring=occurring), implementation)
    case.tensors["targets"] = ignored
    wanted = run(case.with_(occurring=occurring), implementation)
    for name in wanted:
        assert torch.equal(ours[name], wanted[name]), name
    assert ours["log_probs"][0] == 0


def test_impossible_targets_are_refused(occurring):
    case = occurring_case(occurring).with_(occurring=occurring)
    case.tensors["targets"][4] = VOCABULARY.kmer_id("ANG")  # an order row
    with pytest.raises(IndexError, match=r"row 4 has target .* in an order row a token that occurs"):
        run(case, "chunked")
    case.tensors["targets"][4] = IGNORE_INDEX
    case.tensors["targets"][0] = len(VOCABULARY)
    with pytest.raises(IndexError, match=r"row 0 has target 189: wanted 0..188"):
        run(case, "chunked")


def test_arguments_that_do_not_fit_together_are_refused(occurring):
    case = occurring_case(occurring)
    with pytest.raises(ValueError, match="classes and occurring"):
        run(case.with_(occurring=occurring, classes=torch.tensor([1])), "chunked")
    with pytest.raises(ValueError, match="k 4 and occurring tokens of k 3"):
        run(case.with_(occurring=occurring, k=4), "chunked")
    small = occurring_tokens(Vocabulary(k=2), [])
    with pytest.raises(ValueError, match="occurring is for 64 tokens, weight has 189 rows"):
        run(case.with_(occurring=small), "chunked")
    with pytest.raises(ValueError, match="occurring is on meta"):
        run(case.with_(occurring=occurring.to("meta")), "chunked")
    with pytest.raises(ValueError, match=r"id 189: the vocabulary has ids 0..188"):
        occurring_tokens(VOCABULARY, [189])
    with pytest.raises(ValueError, match="all 64 tokens occur"):
        occurring_tokens(Vocabulary(k=2), range(64))


def test_unequal_rows_are_detected(occurring):
    case = occurring_case(occurring)
    weight, bias = case.tensors["weight"], case.tensors["bias"]
    assert unequal_rest(weight, bias, occurring) == 0
    weight[occurring.rest[3], 5] += 0.5 * weight.abs().max()
    assert unequal_rest(weight, bias, occurring) > 0.3
    equalize_rest(weight, bias, occurring)
    assert unequal_rest(weight, bias, occurring) == 0
    bias[occurring.rest[-1]] += 1.0
    assert unequal_rest(weight, bias, occurring) > 0.3


def test_the_compact_table_and_its_gradient(occurring):
    table = torch.randn(len(VOCABULARY), 2, dtype=torch.float64)
    equalize_rest(table, None, occurring)
    compact = compact_rows(table.requires_grad_(), occurring)
    assert compact.shape == (64 + 2 + 1, 2)
    compact.backward(gradient := torch.randn_like(compact))
    assert torch.equal(table.grad[occurring.tokens], gradient[:-1])
    assert torch.equal(table.grad[occurring.rest], (gradient[-1:] / len(occurring.rest)).expand(123, 2))


# torch 2.13's own tracer makes an autograd.Function object, which torch's own warning forbids
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("implementation", ["chunked", "triton"])
@pytest.mark.parametrize("settings", [{}, {"base_level": 0.5}], ids=str)
def test_compiled_in_one_graph_it_gives_the_same(occurring, implementation, settings):
    case = occurring_case(occurring, rows=20, dtype=torch.float32, **settings).with_(occurring=occurring)

    def total_and_gradient(function):
        weight = case.tensors["weight"].clone().requires_grad_()
        result = function(weight, {k: t for k, t in case.tensors.items() if k != "weight"})
        result.total.backward()
        return result.total.detach(), weight.grad

    def loss(weight, others):
        return combined_loss(weight=weight, **others, **case.settings)

    torch.compiler.reset()
    with dispatch.using(combined_loss=implementation):
        eager = total_and_gradient(loss)
        compiled = total_and_gradient(torch.compile(loss, backend="aot_eager", fullgraph=True))
    for ours, wanted in zip(compiled, eager, strict=True):
        torch.testing.assert_close(ours, wanted)


def train(
    occurring: OccurringTokens | None, steps: int, implementation: str
) -> tuple[list[float], list[torch.Tensor]]:
    """AdamW with decay and clipping over a small head; (losses, weights)."""
    torch.manual_seed(0)
    tokens = occurring_tokens(VOCABULARY, ANSWERS)
    body = torch.nn.Linear(12, 24).double()
    head = torch.nn.Linear(24, len(VOCABULARY)).double()
    equalize_rest(head.weight.data, head.bias.data, tokens)
    parameters = [*body.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-2, weight_decay=0.1, eps=1e-8)
    losses = []
    for _ in range(steps):
        x = torch.randn(40, 12, dtype=torch.float64)
        targets = tokens.tokens[
            (x[:, :3].gt(0) * torch.tensor([16, 4, 1])).sum(1) + torch.randint(0, 2, (40,))
        ]
        with dispatch.using(combined_loss=implementation):
            loss = combined_loss(
                body(x), head.weight, targets, bias=head.bias, occurring=occurring, z_loss=1e-4
            ).total
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        assert norm > 0.5 or losses  # the first steps are clipped
        optimizer.step()
        losses.append(loss.item())
    return losses, [p.detach() for p in parameters]


@pytest.mark.parametrize("implementation", ["reference", "chunked"])
def test_200_steps_of_adamw_are_those_of_the_full_vocabulary(occurring, implementation):
    losses, weights = train(occurring, 200, implementation)
    full_losses, full_weights = train(None, 200, implementation)
    assert losses[-1] < 0.7 * losses[0]
    assert max(abs(a - b) for a, b in zip(losses, full_losses, strict=True)) < 1e-12
    for ours, wanted in zip(weights, full_weights, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-11, atol=1e-12)
    assert unequal_rest(weights[2], weights[3], occurring) == 0


def test_the_cost_depends_on_the_tokens_that_occur():
    """The 0.1B model's vocabulary: 4,130 of 19,564 rows are multiplied."""
    vocabulary = Vocabulary(k=6)
    tokens = occurring_tokens(vocabulary, range(33))
    assert (len(tokens.tokens), len(tokens.rest)) == (4129, 15435)
    weight = torch.randn(len(vocabulary), 8)
    assert compact_rows(weight, tokens).shape == (4130, 8)
    assert math.isclose(len(vocabulary) / 4130, 4.74, rel_tol=0.01)
