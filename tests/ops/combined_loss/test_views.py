"""combined_loss on views of tensors: with any strides, the result is that of contiguous copies."""

from collections.abc import Callable

import pytest
import torch

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.combined_loss.op import combined_loss
from tests.ops.combined_loss.cases import Case, make_case, run

IMPLEMENTATIONS = ["reference", "chunked", "triton"]
TENSORS = (
    "hidden", "weight", "bias", "targets", "row_kind", "gc_prediction", "gc_target", "gc_mask", "classes",
)  # fmt: skip


def column(x: torch.Tensor) -> torch.Tensor:
    """A view with gaps: the stride of the last axis is 2."""
    return torch.stack([x, torch.flip(x, (0,))], -1)[..., 0]


def shifted(x: torch.Tensor) -> torch.Tensor:
    """A view that begins inside its storage."""
    return torch.cat([torch.flip(x, (0,))[:1], x])[1:]


def every_other(x: torch.Tensor) -> torch.Tensor:
    return torch.repeat_interleave(x, 2, 0)[::2]


def transposed(x: torch.Tensor) -> torch.Tensor:
    return x.t().contiguous().t()


def one_for_all(x: torch.Tensor) -> torch.Tensor:
    """Every entry is the first one; only this one is in memory."""
    return x[:1].clone().expand(x.shape)


VIEWS: list[Callable[[torch.Tensor], torch.Tensor]] = [column, shifted, every_other, transposed, one_for_all]


def with_classes(case: Case) -> Case:
    classes = torch.tensor([3, 17, 4, 9])
    case.tensors["targets"].copy_(classes[torch.randint(0, 4, case.tensors["targets"].shape)])
    return case.with_(classes=classes)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("name", "view"),
    # classes are distinct tokens
    [(name, view) for name in TENSORS for view in VIEWS if (name, view) != ("classes", one_for_all)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_view_gives_what_its_contiguous_copy_gives(implementation, name, view):
    case = make_case(33, 23, 8)
    if name == "classes":
        case = with_classes(case)
    given = case.settings if name == "classes" else case.tensors
    seen = view(given[name])
    given[name] = seen.contiguous().clone()
    wanted = run(case, implementation)
    given[name] = seen
    assert seen.storage_offset() or not seen.is_contiguous() or seen.dim() == 1
    # `run` copies its leaves, so the view itself is passed without gradients first
    with dispatch.using(combined_loss=implementation):
        plain = combined_loss(**case.tensors, **case.settings, return_log_probs=True)
    for output, value in zip(("total", "next_token", "order", "gc", "log_probs"), plain, strict=True):
        torch.testing.assert_close(value, wanted[output], rtol=1e-5, atol=1e-6, msg=output)
    if name not in ("hidden", "weight", "bias", "gc_prediction"):
        return
    base = seen.detach().requires_grad_()  # keeps the strides
    assert base.stride() == seen.stride()
    with dispatch.using(combined_loss=implementation):
        total = combined_loss(**(case.tensors | {name: base}), **case.settings).total
    cotangent = torch.linspace(0.5, 1.5, total.numel(), dtype=torch.float64).to(total.dtype)
    total.backward(cotangent.reshape(total.shape))
    gradient = torch.zeros_like(wanted[f"d_{name}"]) if base.grad is None else base.grad
    torch.testing.assert_close(gradient, wanted[f"d_{name}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("samples", [0, 1])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_zero_or_one_row_and_zero_or_one_sample(implementation, rows, samples, reduction):
    tensors = make_case(2, 7, 4).tensors
    for name in ("hidden", "targets", "row_kind"):
        tensors[name] = tensors[name][:rows]
    for name in ("gc_prediction", "gc_target", "gc_mask"):
        tensors[name] = tensors[name][:samples]
    case = Case(tensors, {"reduction": reduction})
    wanted = run(case, "reference")
    for name, value in run(case, implementation).items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-5, atol=1e-6, msg=name)
        assert torch.isfinite(value).all(), name


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_backward_from_an_expanded_gradient(implementation):
    """The gradient of `total.sum()` with reduction="none" is a view with stride 0."""
    case = make_case(33, 23, 8, reduction="none")
    hidden = case.tensors["hidden"].requires_grad_()
    others = {k: t for k, t in case.tensors.items() if k != "hidden"}
    with dispatch.using(combined_loss=implementation):
        combined_loss(hidden, **others, **case.settings).total.sum().backward()
        summed, hidden.grad = hidden.grad, None
        combined_loss(
            hidden, **others, **(case.settings | {"reduction": "sum", "gc_weight": 0.0})
        ).total.backward()
    torch.testing.assert_close(summed, hidden.grad, rtol=1e-5, atol=1e-6)
