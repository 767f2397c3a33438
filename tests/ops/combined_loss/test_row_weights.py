"""A weight for each next-token row, in every implementation, against the formula and fp64."""

import pytest
import torch

from dnagpt_fast.batch import IGNORE_INDEX, ROW_NEXT_TOKEN, ROW_ORDER
from dnagpt_fast.ops import combined_loss
from dnagpt_fast.ops.combined_loss.occurring import equalize_rest, occurring_tokens
from dnagpt_fast.vocab import Vocabulary
from tests.ops.combined_loss.cases import Case, assert_implementation_close, make_case, run

IMPLEMENTATIONS = ["reference", "chunked", "triton"]


def weighted(case: Case) -> Case:
    """Weights of 0, 1 and between; the last one is on an order row, where it must have no effect."""
    weight = torch.rand(len(case.tensors["targets"]), dtype=torch.float64)
    weight[::5], weight[1::9] = 0.0, 1.0
    return Case({**case.tensors, "row_weight": weight}, case.settings)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_every_output_and_gradient_against_fp64(implementation, reduction):
    assert_implementation_close(weighted(make_case(37, 90, 16, reduction=reduction)), implementation)


def test_the_formula():
    case = weighted(make_case(40, 50, 8, torch.float64))
    t = case.tensors
    logits = torch.nn.functional.linear(t["hidden"], t["weight"], t["bias"])
    nll = torch.nn.functional.cross_entropy(logits, t["targets"], reduction="none", ignore_index=IGNORE_INDEX)
    counted = t["targets"] != IGNORE_INDEX
    is_next, is_order = counted & (t["row_kind"] == ROW_NEXT_TOKEN), counted & (t["row_kind"] == ROW_ORDER)
    found = run(case, "reference")
    next_token = (t["row_weight"] * nll)[is_next].sum() / t["row_weight"][is_next].sum()
    assert torch.allclose(found["next_token"], next_token)
    assert torch.allclose(found["order"], nll[is_order].mean())
    gc = (t["gc_prediction"] - t["gc_target"]).square()[t["gc_mask"]].mean()
    assert torch.allclose(found["total"], next_token + 0.7 * nll[is_order].mean() + 0.3 * gc)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equal_weights_change_nothing(implementation):
    case = make_case(37, 90, 16)
    same = Case({**case.tensors, "row_weight": torch.full((37,), 0.25)}, case.settings)
    plain, equal = run(case, implementation), run(same, implementation)
    for name, value in plain.items():
        torch.testing.assert_close(equal[name], value, rtol=1e-5, atol=1e-6)


def test_the_loss_is_0_if_all_weights_are_0():
    case = make_case(12, 20, 8)
    found = run(Case({**case.tensors, "row_weight": torch.zeros(12)}, case.settings), "chunked")
    assert found["next_token"] == 0
    assert torch.isfinite(found["d_hidden"]).all()


def test_with_the_occurring_vocabulary_it_is_the_same_as_with_the_full_one():
    vocabulary = Vocabulary(3)
    occurring = occurring_tokens(vocabulary, [0, 1])
    case = weighted(make_case(37, len(vocabulary), 16, torch.float64))
    tokens = occurring.tokens[torch.randint(0, len(occurring.tokens), (37,))]
    case.tensors["targets"] = torch.where(case.tensors["targets"] == IGNORE_INDEX, IGNORE_INDEX, tokens)
    equalize_rest(case.tensors["weight"], case.tensors["bias"], occurring)
    full, compact = run(case, "reference"), run(case.with_(occurring=occurring), "reference")
    for name, value in full.items():
        torch.testing.assert_close(compact[name], value)


def test_weights_that_do_not_fit_are_refused():
    tensors = {
        "hidden": torch.randn(4, 8),
        "weight": torch.randn(9, 8),
        "targets": torch.zeros(4, dtype=torch.int64),
    }
    with pytest.raises(
        ValueError, match=r"row_weight is torch.float32 \(3,\) on cpu: wanted floats \(4,\) on cpu"
    ):
        combined_loss(**tensors, row_weight=torch.ones(3))
    with pytest.raises(ValueError, match=r"row_weight is torch.int64"):
        combined_loss(**tensors, row_weight=torch.ones(4, dtype=torch.int64))
