"""combined_loss: every implementation against fp64, every convention against its formula, every error."""

import pytest
import torch
import torch.nn.functional as F

from dnagpt_fast.batch import IGNORE_INDEX, ROW_NEXT_TOKEN, ROW_ORDER
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.combined_loss import chunked
from dnagpt_fast.ops.combined_loss.op import combined_loss
from tests.ops.combined_loss.cases import assert_implementation_close, make_case, run

# a program per row takes long in the interpreter: test_products.py has its default tests
PRODUCTS = pytest.param("products", marks=pytest.mark.slow)
ALL = ["reference", "chunked", "triton", PRODUCTS]
KERNELS = ["chunked", "triton", PRODUCTS]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


SETTINGS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "z-loss": {"z_loss": 1e-2},
    "soft-capped": {"soft_cap": 3.0},
    "all": {"label_smoothing": 0.2, "z_loss": 1e-3, "soft_cap": 2.0},
}


@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
# one row and a vocabulary smaller than any tile; the DNAGPT k = 3 vocabulary with an odd number of rows
@pytest.mark.parametrize("shape", [(1, 7, 16), (33, 189, 48)], ids=str)
def test_every_output_and_gradient_against_fp64(implementation, dtype, settings, shape):
    assert_implementation_close(make_case(*shape, dtype=dtype, **settings), implementation)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("implementation", KERNELS)
def test_reductions_against_fp64(implementation, reduction):
    assert_implementation_close(make_case(33, 189, 48, reduction=reduction), implementation)


# one less and one more than a tile of rows and of vocabulary (128, in fp32 64), a larger prime, D no multiple of a step
EDGES = [(63, 65, 40), (64, 64, 64), (127, 129, 33), (128, 128, 64), (129, 127, 65), (257, 263, 31)]


@pytest.mark.parametrize("shape", EDGES, ids=str)
@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tile_edges_against_fp64(implementation, dtype, shape):
    assert_implementation_close(make_case(*shape, dtype=dtype, z_loss=1e-3), implementation)


@pytest.mark.parametrize("implementation", ["chunked", pytest.param("triton", marks=pytest.mark.slow)])
def test_the_published_vocabulary_against_fp64(implementation):
    """More rows than a CPU chunk of 19,564 logits (214), and one more than two row tiles of 128."""
    assert_implementation_close(make_case(257, 19_564, 64), implementation)


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_formulas_written_out(implementation, settings):
    tolerance = (
        1e-7 if implementation in ("triton", "products") else 1e-12
    )  # a kernel takes its settings as fp32
    case = make_case(9, 23, 8, **settings).to(torch.float64)
    ours = run(case, implementation)
    x, w, t = case.tensors["hidden"], case.tensors["weight"], case.tensors["targets"]
    smoothing, z_loss, cap = (
        settings.get(k, d) for k, d in (("label_smoothing", 0), ("z_loss", 0), ("soft_cap", 0))
    )
    sums, counts = {ROW_NEXT_TOKEN: 0.0, ROW_ORDER: 0.0}, {ROW_NEXT_TOKEN: 0, ROW_ORDER: 0}
    for r in range(9):
        z = [float(x[r] @ w[v] + case.tensors["bias"][v]) for v in range(23)]
        if cap:
            z = [cap * torch.tanh(torch.tensor(value / cap, dtype=torch.float64)).item() for value in z]
        lse = torch.tensor(z, dtype=torch.float64).exp().sum().log().item()
        kind = int(case.tensors["row_kind"][r])
        if kind not in sums or t[r] == IGNORE_INDEX:
            assert ours["log_probs"][r] == 0
            continue
        log_p = [value - lse for value in z]
        assert abs(ours["log_probs"][r] - log_p[t[r]]) < tolerance
        nll = -(1 - smoothing) * log_p[t[r]] - smoothing * sum(log_p) / 23
        sums[kind] += nll + z_loss * lse**2
        counts[kind] += 1
    next_token, order = (sums[kind] / counts[kind] for kind in (ROW_NEXT_TOKEN, ROW_ORDER))
    kept = case.tensors["gc_mask"]
    gc = float((case.tensors["gc_prediction"] - case.tensors["gc_target"])[kept].square().mean())
    for name, wanted in (("next_token", next_token), ("order", order), ("gc", gc)):
        assert abs(float(ours[name]) - wanted) < tolerance, name
    assert abs(float(ours["total"]) - (next_token + 0.7 * order + 0.3 * gc)) < tolerance


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_plain_rows_equal_torch_cross_entropy(implementation, reduction, smoothing):
    x, w = torch.randn(40, 16, dtype=torch.float64), torch.randn(50, 16, dtype=torch.float64)
    t = torch.randint(0, 50, (40,))
    t[::6] = 13
    wanted = F.cross_entropy(x @ w.T, t, ignore_index=13, reduction=reduction, label_smoothing=smoothing)
    with dispatch.using(combined_loss=implementation):
        ours = combined_loss(x, w, t, ignore_index=13, reduction=reduction, label_smoothing=smoothing)
    tolerance = 1e-7 if implementation in ("triton", "products") else 1e-12
    torch.testing.assert_close(ours.total, wanted, rtol=tolerance, atol=tolerance)
    assert ours.log_probs is None
    assert float(ours.order.sum()) == 0
    assert float(ours.gc.sum()) == 0


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_all_rows_ignored_is_zero_loss_and_zero_gradient(implementation, reduction):
    case = make_case(6, 11, 4, reduction=reduction)
    case.tensors["targets"].fill_(IGNORE_INDEX)
    case.tensors["gc_mask"].fill_(False)
    for name, value in run(case, implementation).items():
        assert torch.equal(value, torch.zeros_like(value)), name


@pytest.mark.parametrize("implementation", ALL)
def test_no_rows_at_all(implementation):
    x, w = torch.zeros(0, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    with dispatch.using(combined_loss=implementation):
        total = combined_loss(x, w, torch.zeros(0, dtype=torch.int64)).total
    total.backward()
    assert float(total.detach()) == 0
    assert torch.equal(w.grad, torch.zeros_like(w))


@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_true_class_gradient_at_p_0999(implementation, dtype):
    """The error of bf16(p) - 1 is 100 % here. dW of the target's row is (p - 1) x, with an error of at most 0.5 %."""
    vocab, margin = 33, float(torch.tensor(0.999 * 32 / 0.001).log())
    x = torch.zeros(1, 16, dtype=dtype)
    x[0, 0] = 1
    w = torch.zeros(vocab, 16, dtype=dtype)
    w[7, 0] = margin
    w.requires_grad_()
    with dispatch.using(combined_loss=implementation):
        combined_loss(x, w, torch.tensor([7])).total.backward()
    true = torch.softmax(w.detach().double()[:, 0], 0)[7] - 1
    assert -1.2e-3 < true < -0.9e-3
    assert abs(float(w.grad[7, 0]) / float(true) - 1) < 5e-3


@pytest.mark.parametrize("implementation", ALL)
def test_classes_restrict_the_softmax(implementation):
    classes = torch.tensor([30, 4, 17])
    case = make_case(20, 40, 8, label_smoothing=0.1).to(torch.float64)
    case.tensors["targets"].copy_(classes[torch.randint(0, 3, (20,))])
    case.tensors["targets"][2] = IGNORE_INDEX
    ours = run(case.with_(classes=classes), implementation)
    small = make_case(20, 40, 8, label_smoothing=0.1).to(torch.float64)
    small.tensors.update(case.tensors)
    small.tensors["weight"], small.tensors["bias"] = (case.tensors[n][classes] for n in ("weight", "bias"))
    place = {30: 0, 4: 1, 17: 2, IGNORE_INDEX: IGNORE_INDEX}
    small.tensors["targets"] = torch.tensor([place[int(t)] for t in case.tensors["targets"]])
    wanted = run(small, "reference")
    for name in ("d_weight", "d_bias"):
        spread_out = torch.zeros_like(ours[name])
        spread_out[classes] = wanted[name]
        wanted[name] = spread_out
    for name, value in wanted.items():
        tolerance = 1e-7 if implementation in ("triton", "products") else 1e-12
        torch.testing.assert_close(ours[name], value, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("implementation", KERNELS)
def test_only_total_has_a_gradient_and_frozen_inputs_get_none(implementation):
    case = make_case(9, 23, 8)
    hidden = case.tensors["hidden"].requires_grad_()
    others = {k: t for k, t in case.tensors.items() if k != "hidden"}
    with dispatch.using(combined_loss=implementation):
        result = combined_loss(hidden, **others)
        assert not any(part.requires_grad for part in result[1:4])
        result.total.backward()
        with torch.no_grad():
            assert not combined_loss(hidden, **others).total.requires_grad
    assert hidden.grad.abs().sum() > 0
    assert case.tensors["weight"].grad is None


@pytest.mark.parametrize("implementation", KERNELS)
def test_two_backward_passes_over_one_graph_never_give_a_wrong_gradient(implementation):
    x, w, t = torch.randn(9, 8, requires_grad=True), torch.randn(20, 8), torch.randint(0, 20, (9,))
    with dispatch.using(combined_loss=implementation):
        total = combined_loss(x, w, t).total
        total.backward(torch.tensor(2.0), retain_graph=True)
        first = x.grad.clone()
        x.grad = None
        if implementation in ("chunked", "products"):  # scales its saved gradient in place
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                total.backward(torch.tensor(2.0))
        else:
            total.backward(torch.tensor(2.0))
            assert torch.equal(x.grad, first)


@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_second_derivative_is_refused(implementation, reduction):
    x, w, t = torch.randn(9, 8, requires_grad=True), torch.randn(20, 8), torch.randint(0, 20, (9,))
    with dispatch.using(combined_loss=implementation):
        total = combined_loss(x, w, t, reduction=reduction).total
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(total.sum(), x, create_graph=True)


@pytest.mark.parametrize(
    ("implementation", "allowed"),
    [("chunked", 1e-6), ("triton", 2e-2)],
)
def test_under_autocast_fp32_parameters_get_fp32_gradients(implementation, allowed):
    """On the CPU fp32 stays fp32; the Triton version multiplies in bf16, as Linear does, and sums in fp32."""
    case = make_case(40, 60, 16)
    wanted = run(case, "reference")
    with torch.autocast("cpu", torch.bfloat16):
        ours = run(case, implementation)
    for name, value in wanted.items():
        assert ours[name].dtype == torch.float32
        assert (ours[name] - value).abs().max() <= allowed * value.abs().max(), name
    if implementation != "chunked":
        assert not torch.equal(ours["log_probs"], wanted["log_probs"])  # otherwise nothing ran in bf16


def test_rows_split_over_many_chunks_give_the_same_as_one(monkeypatch):
    case = make_case(100, 50, 8)
    assert chunked.CHUNK_BYTES > 100 * 50 * 4
    whole = run(case, "chunked")
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 16 * 50 * 4)
    for name, value in run(case, "chunked").items():
        torch.testing.assert_close(value, whole[name], msg=name)


X, W, T = torch.zeros(4, 3), torch.zeros(5, 3), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(hidden=X[0]), r"hidden \(3,\) and weight \(5, 3\): wanted \(R, D\) and \(V, D\)"),
        (dict(weight=W[:, :2]), r"hidden \(4, 3\) and weight \(5, 2\)"),
        (dict(targets=T[:3]), r"targets is \(3,\): wanted \(4,\)"),
        (dict(targets=T.int()), r"targets is torch.int32: wanted torch.int64"),
        (dict(weight=W.double()), r"hidden is torch.float32, weight is torch.float64"),
        (dict(hidden=X.long()), r"hidden torch.int64"),
        (dict(bias=torch.zeros(4)), r"bias is \(4,\): wanted \(5,\)"),
        (dict(row_kind=T), r"row_kind is torch.int64: wanted torch.uint8"),
        (dict(gc_prediction=torch.zeros(2)), r"gc_prediction was given without gc_target"),
        (dict(gc_target=torch.zeros(2)), r"was given without gc_prediction"),
        (dict(gc_prediction=torch.zeros(2), gc_target=torch.zeros(3)), r"gc_target is \(3,\): wanted \(2,\)"),
        (dict(gc_prediction=torch.zeros(2, 1), gc_target=torch.zeros(2, 1)), r"wanted \(B,\)"),
        (dict(reduction="avg"), r"reduction 'avg': wanted one of mean, sum, none"),
        (dict(label_smoothing=1.5), r"label_smoothing 1.5: wanted 0..1"),
        (dict(z_loss=-1.0), r"z_loss -1.0: wanted 0 or more"),
        (dict(soft_cap=0.0), r"soft_cap 0.0: wanted a positive number or None"),
        (dict(skip_below=1.0), r"skip_below 1.0: wanted"),
        (dict(classes=torch.zeros(0, dtype=torch.int64)), r"classes is \(0,\): wanted \(C,\), C >= 1"),
        (dict(weight=W.to("meta")), r"weight is on meta, hidden on cpu"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        combined_loss(**{"hidden": X, "weight": W, "targets": T, **arguments})


@pytest.mark.parametrize("bad", [-1, 5, 19_564])
def test_a_target_outside_the_vocabulary_is_named(bad):
    targets = T.clone()
    targets[2] = bad
    with pytest.raises(IndexError, match=rf"row 2 has target {bad}: wanted 0..4"):
        combined_loss(X, W, targets)


def test_a_target_outside_the_classes_is_named():
    with pytest.raises(IndexError, match="row 1 has target 4, which is not one of the 2 classes"):
        combined_loss(X, W, torch.tensor([3, 4, 3, 3]), classes=torch.tensor([3, 2]))
