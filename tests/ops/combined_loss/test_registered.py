"""combined_loss under torch.compile and FakeTensor: the registered ops, and how much memory they allocate."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.combined_loss import chunked as combined_loss_chunked
from dnagpt_fast.ops.combined_loss import launch as combined_loss_triton
from dnagpt_fast.ops.combined_loss.op import combined_loss
from dnagpt_fast.ops.combined_loss.settings import ROW_SCHEMA, RowSettings
from tests.ops.combined_loss.cases import make_case, run

# Python functions of the registered ops, which the modes below enter: torch itself shows an op as one call
BODIES = {
    "dnagpt_fast::combined_loss_rows": combined_loss_chunked._rows,
    "dnagpt_fast::combined_loss_forward": combined_loss_triton._forward,
    "dnagpt_fast::combined_loss_backward": combined_loss_triton._backward,
}
IMPLEMENTATIONS = {
    "chunked": "dnagpt_fast::combined_loss_rows",
    "triton": "dnagpt_fast::combined_loss_forward",
    "reference": "aten::_log_softmax",
}
MIB = 2**20


class Allocations(TorchDispatchMode):
    """Names of the ops that ran, including those inside our own ops, and the largest tensor that any of them made."""

    def __init__(self):
        super().__init__()
        self.names, self.largest_bytes = set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().partition(".")[0]
        self.names.add(name)
        if name in BODIES:
            with self:
                return BODIES[name](*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.largest_bytes = max(self.largest_bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_requested_implementation_runs(implementation):
    with Allocations() as seen:
        run(make_case(9, 23, 8), implementation)
    assert IMPLEMENTATIONS[implementation] in seen.names
    assert not seen.names & (set(IMPLEMENTATIONS.values()) - {IMPLEMENTATIONS[implementation]})


def test_the_table_chooses_the_chunked_version_on_cpu():
    assert dispatch.choose("combined_loss", "cpu") == "chunked"
    with Allocations() as seen:
        combined_loss(torch.zeros(1, 2), torch.zeros(3, 2), torch.tensor([0]))
    assert "dnagpt_fast::combined_loss_rows" in seen.names


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("settings", [{}, {"soft_cap": 5.0, "label_smoothing": 0.1}], ids=str)
def test_no_tensor_over_the_budget_is_ever_allocated(reduction, settings):
    """1,024 rows of 19,564 logits are 80 MB: five chunks. The budget is one chunk; the (V, D) gradient is smaller."""
    rows, vocab, width = 1024, 19_564, 16
    with Allocations() as seen:
        run(make_case(rows, vocab, width, reduction=reduction, **settings), "chunked")
    assert vocab * width * 4 < seen.largest_bytes <= combined_loss_chunked.CHUNK_BYTES
    with Allocations() as plain:
        run(make_case(rows, vocab, width, reduction=reduction, **settings), "reference")
    assert plain.largest_bytes >= rows * vocab * 4  # otherwise this test could not see the logits


def launches_nowhere(monkeypatch):
    """The Triton host functions allocate as on a card but launch nothing, so that any size can be tested."""

    class Nothing:
        def __getitem__(self, grid):
            return lambda *arguments, **options: None

    for name in dir(combined_loss_triton):
        if name.endswith("_kernel"):
            monkeypatch.setattr(combined_loss_triton, name, Nothing())


class Live(TorchDispatchMode):
    """Peak of the bytes in storages that are made under the mode and alive at the same time."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().partition(".")[0]
        if name in BODIES:
            with self:
                return BODIES[name](*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (
                    torch.multiprocessing.reductions.StorageWeakRef(storage),
                    storage.nbytes(),
                )
        self.alive = {key: pair for key, pair in self.alive.items() if not pair[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


@pytest.mark.parametrize(
    ("weight_dtype", "skip_below"), [(torch.float32, None), (torch.bfloat16, 2**-24)], ids=str
)
def test_32768_rows_take_at_most_128_mib_beyond_the_gradients(monkeypatch, weight_dtype, skip_below):
    """The 0.1B model's 32,768 rows in bf16; plain torch takes 7.7 GB. Memory is allocated, but nothing is computed."""
    launches_nowhere(monkeypatch)
    rows, vocab, width = 32_768, 19_564, 768
    hidden = torch.empty(rows, width, dtype=torch.bfloat16)
    weight, scalar = torch.empty(vocab, width, dtype=torch.bfloat16), torch.ones(())
    targets = torch.zeros(rows, dtype=torch.int64)
    settings = RowSettings(skip_below=skip_below)
    with Live() as live:
        *_, lse, base_pull, scales, _, keep = torch.ops.dnagpt_fast.combined_loss_forward(
            hidden, weight, None, targets, None, None, None, None,
            1.0, 0.01, True, False, *settings,
        )  # fmt: skip
        d_hidden, d_weight, _ = torch.ops.dnagpt_fast.combined_loss_backward(
            scalar, hidden, weight, None, targets, None, lse, base_pull, scales, keep,
            True, True, False, torch.bfloat16, weight_dtype, *settings,
        )  # fmt: skip
    gradients = d_hidden.nbytes + d_weight.nbytes
    assert live.peak > gradients
    assert live.peak - gradients <= 128 * MIB


def test_an_evaluation_in_triton_runs_the_forward_op_alone():
    case = make_case(70, 90, 16)
    with dispatch.using(combined_loss="triton"), torch.no_grad(), Allocations() as seen:
        combined_loss(**case.tensors, **case.settings)
    assert "dnagpt_fast::combined_loss_forward" in seen.names
    assert "dnagpt_fast::combined_loss_backward" not in seen.names


def test_an_evaluation_makes_no_gradient():
    case = make_case(600, 5000, 16)
    with Allocations() as seen, torch.no_grad():
        combined_loss(**case.tensors, **case.settings)
    assert seen.names.isdisjoint({"aten::addmm_", "aten::scatter_add_"})
    with Allocations() as training:
        run(case, "chunked")
    assert {"aten::addmm_", "aten::scatter_add_"} <= training.names


# torch 2.13's own tracer makes an autograd.Function object, which torch's own warning forbids
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("classes", [None, [1, 5, 0, 22]], ids=str)
def test_compiled_in_one_graph_it_gives_the_same(implementation, reduction, classes):
    case = make_case(33, 23, 8, label_smoothing=0.1, reduction=reduction)
    if classes is not None:
        case = case.with_(classes=torch.tensor(classes))
        case.tensors["targets"].copy_(torch.tensor(classes)[torch.randint(0, 4, (33,))])
        case.tensors["targets"][::5] = -100

    def forward_and_backward(function):
        hidden = case.tensors["hidden"].clone().requires_grad_()
        weight = case.tensors["weight"].clone().requires_grad_()
        others = {k: t for k, t in case.tensors.items() if k not in ("hidden", "weight")}
        result = function(hidden, weight, others)
        result.total.sum().mul(3.0).backward()
        return [*(t.detach() for t in result), hidden.grad, weight.grad]

    def loss(hidden, weight, others):
        return combined_loss(hidden, weight, **others, **case.settings, return_log_probs=True)

    torch.compiler.reset()
    with dispatch.using(combined_loss=implementation):
        eager = forward_and_backward(loss)
        compiled = forward_and_backward(torch.compile(loss, backend="aot_eager", fullgraph=True))
    for ours, wanted in zip(compiled, eager, strict=True):
        torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("implementation", ["chunked", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_fake_tensors_have_the_real_shapes_and_dtypes(implementation, dtype):
    """Reading a value, which is a sync on a card, cannot be traced: it would raise here."""
    case = make_case(12, 23, 8, dtype=dtype)
    with dispatch.using(combined_loss=implementation):
        real = combined_loss(**case.tensors, **case.settings, return_log_probs=True)
    with dispatch.using(combined_loss=implementation), FakeTensorMode() as mode:
        fakes = {k: mode.from_tensor(t) for k, t in case.tensors.items()}
        fakes["hidden"].requires_grad_()
        fake = combined_loss(**fakes, **case.settings, return_log_probs=True)
        fake.total.backward()
    for f, r in zip(fake, real, strict=True):
        assert (f.shape, f.dtype, f.device) == (r.shape, r.dtype, r.device)


@pytest.mark.parametrize("wanted", [(True, True, True), (False, True, False), (False, False, False)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck_of_the_chunked_op(wanted, dtype):
    case = make_case(12, 23, 8, dtype=dtype)
    scale = torch.rand(12) if any(wanted) else None
    arguments = [case.tensors[name] for name in ("hidden", "weight", "bias", "targets")]
    settings = RowSettings(label_smoothing=0.1, z_loss=1e-3, soft_cap=5.0)
    is_next = case.tensors["row_kind"] == 1
    torch.library.opcheck(
        torch.ops.dnagpt_fast.combined_loss_rows, (*arguments, is_next, scale, *wanted, *settings)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("skip_below", [None, 2**-24])
def test_opcheck_of_the_triton_ops(dtype, skip_below):
    tensors = make_case(70, 90, 16, dtype=dtype).tensors
    inputs = [tensors[name] for name in ("hidden", "weight", "bias", "targets", "row_kind")]
    gc = [tensors[name] for name in ("gc_prediction", "gc_target", "gc_mask")]
    settings = RowSettings(z_loss=1e-3, soft_cap=5.0, skip_below=skip_below)
    forward = (*inputs, *gc, 1.0, 0.01, True, True, *settings)
    torch.library.opcheck(torch.ops.dnagpt_fast.combined_loss_forward, forward)
    *_, lse, base_pull, scales, _, keep = torch.ops.dnagpt_fast.combined_loss_forward(*forward)
    saved = (torch.tensor(2.0), *inputs, lse, base_pull, scales, keep, True, True, True, torch.float32, dtype)
    torch.library.opcheck(torch.ops.dnagpt_fast.combined_loss_backward, (*saved, *settings))


def test_opcheck_of_the_class_lookup():
    torch.library.opcheck(
        torch.ops.dnagpt_fast.combined_loss_class_targets,
        (torch.tensor([4, -100, 2]), torch.tensor([2, 4]), 7, -100),
    )


def test_the_schemas_carry_the_settings_of_a_row_in_their_order():
    named = [argument.rsplit(" ", 1)[1] for argument in ROW_SCHEMA.split(", ")]
    assert named == list(RowSettings._fields)
