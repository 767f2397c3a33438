"""Inputs of the combined loss for the tests of its implementations, and one way to run and compare them."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from dnagpt_fast.batch import IGNORE_INDEX, ROW_IGNORED, ROW_NEXT_TOKEN, ROW_ORDER
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.combined_loss.op import combined_loss
from tests.closeness import assert_no_worse_than_naive

OUTPUTS = ("total", "next_token", "order", "gc", "log_probs")
DIFFERENTIABLE = ("hidden", "weight", "bias", "gc_prediction")


@dataclass(frozen=True)
class Case:
    """Inputs as keyword arguments of `combined_loss`; settings likewise."""

    tensors: dict[str, torch.Tensor | None]
    settings: dict[str, Any]

    def with_(self, **settings: Any) -> "Case":
        return replace(self, settings={**self.settings, **settings})

    def to(self, dtype: torch.dtype) -> "Case":
        cast = {
            k: t.to(dtype) if t is not None and t.is_floating_point() else t for k, t in self.tensors.items()
        }
        return replace(self, tensors=cast)


def make_case(
    rows: int,
    vocab: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    spread: float = 1.0,
    **settings: Any,
) -> Case:
    """Rows of all three kinds, some ignored by their target, a masked GC row, a bias; logits of size `spread`."""
    kind = torch.full((rows,), ROW_NEXT_TOKEN, dtype=torch.uint8)
    kind[4::7] = ROW_ORDER
    kind[5::11] = ROW_IGNORED
    targets = torch.randint(0, vocab, (rows,))
    targets[3::8] = IGNORE_INDEX
    targets[4 % rows] = vocab - 1  # an order row's target in the last, partly empty, tile
    targets[0] = 0
    tensors: dict[str, torch.Tensor | None] = {
        "hidden": torch.randn(rows, width).to(dtype),
        "weight": (spread * torch.randn(vocab, width) / width**0.5).to(dtype),
        "targets": targets,
        "bias": (0.1 * torch.randn(vocab)).to(dtype),
        "row_kind": kind,
        "gc_prediction": torch.rand(5).to(dtype),
        "gc_target": torch.rand(5).to(dtype),
        "gc_mask": torch.tensor([True, True, False, True, True]),
    }
    return Case(tensors, {"order_weight": 0.7, "gc_weight": 0.3, **settings})


def run(case: Case, implementation: str) -> dict[str, torch.Tensor | None]:
    """Every output and, as `d_<name>`, every gradient of `total` (of its weighted sum if it is (R,))."""
    leaves = {
        k: t.detach().clone().requires_grad_(k in DIFFERENTIABLE) if t is not None else None
        for k, t in case.tensors.items()
    }
    with dispatch.using(combined_loss=implementation):
        result = combined_loss(**leaves, **case.settings, return_log_probs=True)
    answer = {name: value.detach() for name, value in zip(OUTPUTS, result, strict=True)}
    cotangent = torch.linspace(0.5, 1.5, result.total.numel(), dtype=torch.float64)
    result.total.backward(cotangent.to(result.total).reshape(result.total.shape))
    for name in DIFFERENTIABLE:
        leaf = leaves[name]
        # a tensor that the loss does not use (GC under "none") may have the gradient None, which counts as zeros
        if leaf is not None:
            answer[f"d_{name}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return answer


def assert_implementation_close(case: Case, implementation: str, factor: float = 2.0) -> None:
    """All outputs and gradients: error at most `factor` times that of plain torch in the same dtype, truth in fp64."""
    truth = run(case.to(torch.float64), "reference")
    naive = run(case, "reference")
    ours = run(case, implementation)
    assert ours.keys() == truth.keys()
    for name in truth:
        assert_no_worse_than_naive(name, ours[name], naive[name], truth[name], factor)
