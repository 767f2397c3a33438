"""How an op of this package becomes an op of torch, known to torch.compile, FakeTensor and autograd."""

from collections.abc import Callable
from typing import Any

import torch

NAMESPACE = "dnagpt_fast"
_implementations: dict[str, Callable[..., Any]] = {}


def register_op(
    schema: str,
    implementation: Callable[..., Any],
    *,
    fake: Callable[..., Any],
    key: str = "CompositeExplicitAutograd",
) -> torch._ops.OpOverloadPacket:
    """Registers `torch.ops.dnagpt_fast.<name>` and returns it.

    schema  "name(Tensor x, int n) -> Tensor", as in torch.library
    fake    returns empty outputs of the right shapes and dtypes; it may not read a value
    key     the dispatch key of the implementation: for all devices, or "CPU"
    """
    name, parenthesis, arguments = schema.partition("(")
    qualified = f"{NAMESPACE}::{name}"
    torch.library.define(qualified, parenthesis + arguments)
    torch.library.impl(qualified, key, implementation)
    torch.library.register_fake(qualified, fake)
    _implementations[name] = implementation
    op: torch._ops.OpOverloadPacket = getattr(getattr(torch.ops, NAMESPACE), name)
    return op


def implementation_of(name: str) -> Callable[..., Any]:
    """The function that a registered op calls, for traces that run it on fake tensors. Raises KeyError."""
    return _implementations[name]


def refuse_second_derivative(op: str) -> None:
    """Called in a backward pass: raises RuntimeError under create_graph=True.

    Does the same as torch.autograd.function.once_differentiable, in a form that torch.compile can trace.
    """
    if not torch.compiler.is_compiling() and torch.is_grad_enabled():
        raise RuntimeError(
            f'{op} has no second derivative (create_graph=True); use dispatch.using({op}="reference")'
        )
