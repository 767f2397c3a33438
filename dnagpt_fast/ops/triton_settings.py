"""Settings that all Triton ops share: the card, where Triton may run, the dtype of sums, the precision of products."""

import functools
from typing import Any

import torch
from torch import Tensor

from dnagpt_fast.ops.dispatch import constant_when_compiled

# Arguments of every launch. Triton 3.10 turns fused multiply-add off by default; results must not change with it.
LAUNCH: dict[str, Any] = {"enable_fp_fusion": True}

# Kernel parameters that count rows, tokens, heads or tiles. Triton would compile a kernel again where one of them is 1
# or a multiple of 16. It still does so for strides and widths, whose multiples decide how memory is read.
COUNTS = (
    "R", "V", "B", "H", "T", "Q", "S", "SPLITS", "splits", "tiles", "tiles_a_split", "row_tiles", "blocks", "entries",
    "first_row", "ignore_index", "top_k", "parts",
)  # fmt: skip

# Cards whose tensor cores and shared memory need the same tiles; an unknown card uses those of the smallest, "ampere".
FAMILIES = {
    "sm_80": "ampere",
    "sm_86": "ampere",
    "sm_87": "ampere",
    "sm_89": "ampere",
    "sm_120": "rtx blackwell",
    "sm_121": "rtx blackwell",
    "sm_90": "hopper",
    "sm_100": "blackwell",
    "sm_103": "blackwell",
    "gfx942": "cdna3",
}


def family(device: torch.device) -> str:
    """The row of a tile table for this card."""
    return FAMILIES.get(architecture(device), "ampere")


@constant_when_compiled
def architecture(device: torch.device) -> str:
    """The card, as "sm_90" or "gfx942". CPU tensors (in the interpreter) use the settings of sm_80."""
    return "sm_80" if device.type == "cpu" else _card(device.index)


@functools.cache
def _card(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip:
        return str(properties.gcnArchName).partition(":")[0]
    return f"sm_{properties.major}{properties.minor}"


@constant_when_compiled
def interpreting() -> bool:
    """True if Triton's interpreter runs the kernels on CPU tensors."""
    import triton

    return bool(triton.knobs.runtime.interpret)


@constant_when_compiled
def triton_version() -> tuple[int, int]:
    """(3, 9) for 3.9.0."""
    import triton

    major, minor = triton.__version__.split(".")[:2]
    return int(major), int(minor)


@constant_when_compiled
def interpreter_fault() -> str:
    """Why Triton's interpreter cannot run the kernels here; "" if it can, or does not run in this process.

    Before 3.7 it makes loop bounds of arrays with one element, which numpy 2.4 and later refuse.
    """
    import numpy
    import triton

    numpy_version = tuple(int(part) for part in numpy.__version__.split(".")[:2])
    if not triton.knobs.runtime.interpret or triton_version() >= (3, 7) or numpy_version < (2, 4):
        return ""
    return (
        f"the interpreter of Triton {triton.__version__} does not work with numpy {numpy.__version__}: "
        "wanted Triton 3.7 or later, or numpy before 2.4"
    )


def check_may_run(op: str, x: Tensor, instead: str) -> None:
    """Raises RuntimeError for CPU tensors outside the interpreter, or if it has a fault. instead: an implementation of
    `op` for the CPU."""
    if x.device.type == "cpu" and not interpreting():
        raise RuntimeError(
            f"{op}: Triton runs on CPU tensors only in its interpreter; set TRITON_INTERPRET=1 before Triton is "
            f'imported, or choose dispatch.using({op}="{instead}")'
        )
    if x.device.type == "cpu" and (fault := interpreter_fault()):
        raise RuntimeError(f'{op}: {fault}; or choose dispatch.using({op}="{instead}")')


def accumulator(x: Tensor) -> torch.dtype:
    """The dtype in which a kernel sums products of x: float32, or float64 for float64."""
    return torch.promote_types(x.dtype, torch.float32)


def product_constants(x: Tensor) -> dict[str, Any]:
    """PRECISION and ACC, the arguments of `tl.dot`, of a kernel that multiplies tensors of x's dtype."""
    import triton.language as tl

    return {
        "PRECISION": "tf32" if x.dtype == torch.float32 and fp32_products_may_be_tf32() else "ieee",
        "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32,
    }


def fp32_products_may_be_tf32() -> bool:
    """Whether the user allowed TF32, with torch's current setting or with the legacy one.

    `torch.get_float32_matmul_precision` raises once the current setting has been used; this attribute shows both.
    """
    return torch.backends.cuda.matmul.fp32_precision not in ("none", "ieee")
