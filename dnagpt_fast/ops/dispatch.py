"""Which implementation of an op runs on which device: the only place that decides it.

The table holds names, not functions, so nothing here imports a kernel. A choice can be overridden with
`DNAGPT_FAST_IMPL=attention=reference,gc_count=native` or `with dispatch.using(attention="reference"):`.
A choice that cannot run raises and says how to fix it; nothing falls back silently.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

IMPLEMENTATIONS: dict[str, tuple[str, ...]] = {
    "kmer_tokenize": ("native", "reference"),
    "gc_count": ("native", "reference"),
    "sample_batch": ("native", "reference"),
    "text_encode": ("native", "reference"),
    "fasta_pack": ("native", "reference"),
    "sequence_text": ("native", "reference"),
    # "rule": sdpa or triton, by card and shape; attention/rule.py says which and why
    "attention": ("sdpa", "triton", "reference", "rule"),
    "attention_decode": ("grouped", "sdpa", "triton", "reference", "rule"),
    "attention_extend": ("separate", "triton", "rule"),
    "next_tokens": ("reference", "triton", "rule"),
    "advance_lanes": ("reference", "triton"),
    # a step of generation: replayed as one CUDA graph, or launch by launch
    "decoding": ("eager", "graph"),
    # "products": the gradient in the forward pass where one of a mean or sum is wanted, "triton" elsewhere;
    # "rule": one of both by the size of the vocabulary, products.py says which and why
    "combined_loss": ("chunked", "triton", "products", "reference", "rule"),
    "residual_norm": ("triton", "reference"),
    # "dense": GELU between two products; "triton": inside two of the products; "rule": mlp/rule.py says which and why
    "mlp": ("dense", "triton", "reference", "rule"),
    "linear": ("onednn", "torch"),
    "linear_bfloat16": ("torch", "reference"),
    "linear_int8": ("torch", "reference"),
}

DEFAULTS: dict[str, dict[str, str]] = {
    "kmer_tokenize": {"cpu": "native", "cuda": "native"},
    "gc_count": {"cpu": "native", "cuda": "native"},
    "sample_batch": {"cpu": "native", "cuda": "native"},
    "text_encode": {"cpu": "native"},
    "fasta_pack": {"cpu": "native"},
    "sequence_text": {"cpu": "native"},
    "attention": {"cpu": "sdpa", "cuda": "rule"},
    "attention_decode": {"cpu": "grouped", "cuda": "rule"},
    "attention_extend": {"cpu": "separate", "cuda": "rule"},
    "next_tokens": {"cpu": "reference", "cuda": "rule"},
    "advance_lanes": {"cpu": "reference", "cuda": "triton"},
    "decoding": {"cpu": "eager", "cuda": "graph"},
    "combined_loss": {"cpu": "chunked", "cuda": "rule"},
    # torch's own addition and LayerNorm on the CPU: one pass more in the caches is not what a step there waits for
    "residual_norm": {"cpu": "reference", "cuda": "triton"},
    "mlp": {"cpu": "dense", "cuda": "rule"},
    # "onednn" if torch was built with it, as for x86 and ARM servers, otherwise "torch": see _default
    "linear": {"cpu": "onednn", "cuda": "torch"},
    # without the processor's instructions they must be forced: traits.refuse_products
    "linear_bfloat16": {"cpu": "torch"},
    "linear_int8": {"cpu": "torch"},
}

ENVIRONMENT = "DNAGPT_FAST_IMPL"

_forced: ContextVar[dict[str, str] | None] = ContextVar("dnagpt_fast_forced_implementations", default=None)


def constant_when_compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Marks a function that torch.compile calls once, while it traces, and whose result it keeps.

    Does the same as torch.compiler.assume_constant_result, but without torch: that function imports all of
    torch._dynamo, which would add seconds to the start of every command.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_when_compiled
def choose(op: str, device_type: str) -> str:
    """The name of the implementation of `op` that runs on `device_type` ("cpu", "cuda") now.

    torch.compile calls it once, while it traces: a compiled model keeps the implementations of that moment.
    Raises ValueError for an unknown op or name, NotImplementedError for a device that the table lacks.
    """
    if op not in DEFAULTS:
        raise ValueError(f"unknown op {op!r}: the table has {', '.join(DEFAULTS)}")
    if (name := forced(op)) is not None:
        return name
    if device_type not in DEFAULTS[op]:
        raise NotImplementedError(
            f"{op} has no implementation for device {device_type!r} (it has {', '.join(DEFAULTS[op])}); "
            f'force one with dispatch.using({op}="reference")'
        )
    return _default(op, device_type)


def forced(op: str) -> str | None:
    """The implementation of `op` that `using` or the environment names; None: neither does."""
    inside = _forced.get()
    if inside and op in inside:
        return inside[op]
    return _from_environment().get(op) if os.environ.get(ENVIRONMENT) else None


def _default(op: str, device_type: str) -> str:
    if op == "linear" and device_type == "cpu":
        import torch

        return "onednn" if torch.backends.mkldnn.is_available() else "torch"
    return DEFAULTS[op][device_type]


@contextmanager
def using(**choices: str) -> Iterator[None]:
    """Force implementations inside the block, on every device: `with using(attention="triton"): ...`."""
    for op, name in choices.items():
        _check(op, name, "dispatch.using")
    token = _forced.set({**(_forced.get() or {}), **choices})
    try:
        yield
    finally:
        _forced.reset(token)


def table() -> dict[str, dict[str, str]]:
    """op -> device -> the name that would run now, overrides included."""
    return {op: {device: choose(op, device) for device in devices} for op, devices in DEFAULTS.items()}


def _from_environment() -> dict[str, str]:
    text = os.environ.get(ENVIRONMENT, "")
    choices: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        op, equals, name = entry.partition("=")
        if not equals:
            raise ValueError(f"{ENVIRONMENT}={text!r}: entry {entry!r} is not of the form op=implementation")
        _check(op, name, ENVIRONMENT)
        choices[op] = name
    return choices


def _check(op: str, name: str, where: str) -> None:
    if op not in IMPLEMENTATIONS:
        raise ValueError(f"{where}: unknown op {op!r}; the table has {', '.join(IMPLEMENTATIONS)}")
    if name not in IMPLEMENTATIONS[op]:
        raise ValueError(
            f"{where}: {op} has no implementation {name!r}; it has {', '.join(IMPLEMENTATIONS[op])}"
        )
