"""The loss kernels compiled for sm_80 and run on the CPU: accesses checked, races detected, schedules shuffled."""

import pytest
import torch

from dnagpt_fast.ops import triton_settings
from dnagpt_fast.ops.combined_loss import launch, products
from dnagpt_fast.ops.combined_loss.occurring import equalize_rest, occurring_tokens
from dnagpt_fast.vocab import Vocabulary
from tests import ptx
from tests.ops.combined_loss.cases import Case, make_case, run

pytestmark = [pytest.mark.ptx, pytest.mark.usefixtures("poisoned_memory")]
compiled = pytest.mark.skipif(
    ptx.interpreting(), reason="run by the test that starts a process that compiles"
)

WRITTEN = {
    "combined_loss_forward_kernel": {
        "p_max",
        "p_sum",
        "p_logit_sum",
        "p_base_sum",
        "p_target_logit",
        "p_tile_max",
    },
    "combined_loss_combine_kernel": {
        "p_lse",
        "p_rows",
        "p_log_probs",
        "p_base_pull",
        "p_block_sums",
        "p_keep",
    },
    "combined_loss_finish_kernel": {"p_total", "p_next", "p_order_loss", "p_gc", "p_scales", "p_d_gc"},
    "combined_loss_count_kernel": {"p_scales"},
    "combined_loss_softmax_kernel": {"p_z", "p_max", "p_sum", "p_logit_sum", "p_target_logit"},
    "combined_loss_dz_kernel": {"p_dz"},
    "combined_loss_dx_kernel": {"p_dx"},
    "combined_loss_dw_kernel": {"p_sum", "p_bias_sum", "p_dw", "p_db"},
}
OF_PRODUCTS = {"combined_loss_count_kernel", "combined_loss_softmax_kernel"}
SETTINGS = {
    "plain": {},
    "skip": {"skip_below": 2**-24},
    "none": {"reduction": "none"},
    "all": {"label_smoothing": 0.1, "z_loss": 1e-3, "soft_cap": 5.0},
}
CASES = [
    (torch.bfloat16, "plain"), (torch.bfloat16, "skip"), (torch.bfloat16, "none"), (torch.bfloat16, "all"),
    (torch.float16, "plain"), (torch.float32, "all"),
]  # fmt: skip


@pytest.mark.skipif(not ptx.interpreting(), reason="this process already compiles")
def test_in_a_process_that_compiles():
    ptx.rerun_without_the_interpreter(__file__)


@pytest.fixture(autouse=True)
def as_on_a_card(monkeypatch):
    """Launches with CPU tensors; a workspace of one row tile, so that sums are in memory between chunks."""
    monkeypatch.setattr(triton_settings, "check_may_run", lambda *_: None)
    monkeypatch.setattr(launch, "MEMORY_BYTES", 1)


def run_compiled(case: Case, seed: int) -> dict[str, torch.Tensor | None]:
    with ptx.compiled_on_the_cpu(WRITTEN, seed) as ran:
        answer = run(case, "triton")
    assert set(ran) == set(WRITTEN) - OF_PRODUCTS
    return answer


def check(case: Case, definition: Case | None = None, *, by: str = "triton", **how) -> None:
    """The results of an implementation, compiled; definition: the case whose plain result is wanted, if not this."""
    definition = definition or case
    truth, naive = run(definition.to(torch.float64), "reference"), run(definition, "reference")
    for ran in ptx.assert_right_under_every_schedule(WRITTEN, lambda: run(case, by), naive, truth, **how):
        assert set(ran) >= OF_PRODUCTS if by == "products" else set(ran) == set(WRITTEN) - OF_PRODUCTS


@compiled
@pytest.mark.parametrize(("dtype", "settings"), CASES, ids=str)
def test_compiled_against_fp64_under_three_schedules(dtype, settings):
    """Three row tiles, the middle one ignored; two vocabulary tiles, the last partly empty; D no multiple of a step."""
    case = make_case(300, 200, 40, dtype=dtype, spread=6.0, **SETTINGS[settings])
    case.tensors["targets"][128:256] = -100
    check(case)


@compiled
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_compiled_true_class_gradient_at_p_0999(dtype):
    """dW of the target's row is (p - 1) x with an error of at most 0.5 %; with p rounded to bf16 it would be 0."""
    margin = float(torch.tensor(0.999 * 32 / 0.001).log())
    x, w = torch.zeros(1, 16, dtype=dtype), torch.zeros(33, 16, dtype=dtype)
    x[0, 0], w[7, 0] = 1, margin
    absent = dict.fromkeys(("bias", "row_kind", "gc_prediction", "gc_target", "gc_mask"))
    case = Case({"hidden": x, "weight": w, "targets": torch.tensor([7]), **absent}, {})
    true = 0.5 * (torch.softmax(w.double()[:, 0], 0)[7] - 1)  # `run` backpropagates 0.5 through a scalar
    ours = run_compiled(case, 0)["d_weight"]
    assert abs(float(ours[7, 0]) / float(true) - 1) < 5e-3


@compiled
def test_compiled_tile_skip_leaves_out_only_what_is_far_below():
    """A vocabulary tile 40 nats below the others: its dW is exactly 0, all other gradients are as without the skip."""
    case = make_case(200, 384, 64, dtype=torch.bfloat16)
    case.tensors["targets"].clamp_(max=255)
    case.tensors["bias"][256:] = -40.0
    exact, skipped = run_compiled(case, 0), run_compiled(case.with_(skip_below=2**-24), 1)
    assert exact["d_weight"][256:].abs().max() > 0
    assert torch.equal(skipped["d_weight"][256:], torch.zeros_like(skipped["d_weight"][256:]))
    for name in exact:
        rows = slice(256) if name in ("d_weight", "d_bias") else slice(None)
        got, wanted = (x[name][rows] if x[name].dim() else x[name] for x in (skipped, exact))
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7, msg=name)


@compiled
@pytest.mark.parametrize("card", ["sm_90", "sm_100"])
def test_compiled_tile_skip_with_the_narrow_tiles_of_newer_cards(card):
    """With a bias some passes have tiles of half the width there; memcheck on an H100 found them at the wrong flags."""
    case = make_case(200, 3 * 128 + 40, 40, dtype=torch.bfloat16, spread=6.0, skip_below=2**-24)
    case.tensors["bias"][128:256] = -60.0
    check(case, card=card, seeds=(0,))


@compiled
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("base_level", [0.0, 0.4])
def test_compiled_over_the_tokens_that_occur(dtype, base_level):
    """k = 4: two or four tiles of plain k-mers, each with the same first bases, and one tile with the rest."""
    vocabulary = Vocabulary(4)
    tokens = occurring_tokens(vocabulary, [3, 19])
    case = make_case(150, len(vocabulary), 40, dtype=dtype, spread=3.0, base_level=base_level, z_loss=1e-3)
    equalize_rest(case.tensors["weight"], case.tensors["bias"], tokens)
    case.tensors["targets"][:] = tokens.tokens[torch.randint(0, 258, (150,))]
    check(case.with_(occurring=tokens), case.with_(k=4) if base_level else case, seeds=(0, 1))


@compiled
def test_compiled_base_level_over_the_full_vocabulary():
    case = make_case(150, len(Vocabulary(4)), 40, dtype=torch.bfloat16, spread=3.0, base_level=0.4, k=4)
    check(case, seeds=(0,))


@compiled
@pytest.mark.parametrize(("dtype", "settings"), [(torch.bfloat16, "plain"), (torch.float32, "all")], ids=str)
def test_the_gradient_in_the_forward_pass_against_fp64(dtype, settings, monkeypatch):
    """Two chunks; rows of three blocks of columns, the last partly empty."""
    monkeypatch.setattr(products, "rows_a_chunk", lambda rows, vocab, itemsize: 20)
    check(make_case(33, 2100, 40, dtype=dtype, spread=6.0, **SETTINGS[settings]), by="products", seeds=(0, 1))
