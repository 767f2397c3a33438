"""Records the Triton launches of a host function without a GPU: inside a `with` block Triton's launch is
replaced.

Triton's own code binds and specialises the arguments, so the compiled code is the one that a card would get
for the same tensors. Needs Triton outside its interpreter (TRITON_INTERPRET unset or 0 when triton is first
imported).
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942")


def target_of(architecture: str) -> GPUTarget:
    """sm_90 -> GPUTarget("cuda", 90, 32); gfx942 -> GPUTarget("hip", "gfx942", 64)."""
    if architecture.startswith("gfx"):
        return GPUTarget("hip", architecture, 64)
    return GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)


@dataclass(frozen=True)
class Launch:
    """One launch: the kernel, its grid, and what Triton would compile for these arguments.

    arguments: name -> value of every parameter, compile-time ones too; runtime: the values a compiled kernel takes.
    """

    kernel: JITFunction
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    runtime: list[Any]
    source: ASTSource
    options: dict[str, Any]
    target: GPUTarget

    def compile(self) -> CompiledKernel:
        return triton.compile(self.source, target=self.target, options=self.options)

    @property
    def key(self) -> tuple[object, ...]:
        """Decides the machine code: kernel, types, compile-time values, alignments and options."""
        source, options = self.source, self.options
        constants, attributes = source.constants, source.attrs
        return (
            self.kernel.__name__,
            tuple(source.signature.items()),
            tuple(sorted((place, str(value)) for place, value in constants.items())),
            tuple(sorted((place, str(value)) for place, value in attributes.items())),
            options["num_warps"],
            options["num_stages"],
        )


def launch_of(
    kernel: JITFunction, args: tuple[Any, ...], kwargs: dict[str, Any], grid: Any, target: GPUTarget
) -> Launch:
    """Binds the arguments of `kernel[grid](*args, **kwargs)` as Triton does on a card of this target."""
    backend = make_backend(target)
    binder = create_function_from_signature(inspect.signature(kernel.fn), kernel.params, backend)
    bound, specialization, options = binder(*args, **kwargs, debug=False)
    options, signature, constants, attributes = kernel._pack_args(
        backend, {**kwargs, "debug": False}, bound, specialization, options
    )
    grid = grid(bound) if callable(grid) else grid
    return Launch(
        kernel=kernel,
        grid=tuple(int(size) for size in grid),
        arguments=dict(bound),
        runtime=[bound[name] for name in signature if signature[name] != "constexpr"],
        source=ASTSource(kernel, signature, constants, attributes),
        options=options.__dict__,
        target=target,
    )


@contextmanager
def launches_go_to(target: GPUTarget, take: Callable[[Launch], None]) -> Iterator[None]:
    """Inside the block every Triton launch of this process calls `take` instead."""
    if triton.knobs.runtime.interpret:
        raise RuntimeError(
            "Triton was imported with TRITON_INTERPRET=1; compiling needs a process without it"
        )

    def run(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        take(launch_of(self, args, kwargs, grid, target))

    original = JITFunction.run
    JITFunction.run = run
    try:
        yield
    finally:
        JITFunction.run = original
