"""Loads the compiled module, and tells what it was built for and which implementations run.

Nothing here needs torch, so that commands which only read genomes start without it.
"""

from pathlib import Path
from typing import Any

from dnagpt_fast.ops import dispatch

try:
    import dnagpt_fast._native as _native
except ImportError as error:
    source = Path(__file__).resolve().parents[2]
    if (source / "setup.py").is_file():
        remedy = (
            f"Python imports dnagpt_fast from its source folder {source}, where it is not built: run Python in another "
            "folder to use an installed dnagpt_fast, or build it here with `pip install -e .`"
        )
    else:
        remedy = "build it with `pip install .` in a clone"
    raise ImportError(f"the compiled part of dnagpt_fast cannot be loaded ({error}): {remedy}") from error

native_module: Any = _native
REBUILD = "DNAGPT_FAST_CUDA=1 pip install --force-reinstall --no-deps dnagpt-fast (or . in a clone), with nvcc on PATH"


def cpu_isa() -> str:
    """The instruction set that the CPU kernels use now: "scalar", "avx2", "avx512" or "neon".

    It is the best one of this machine, or the one that DNAGPT_FAST_CPU_ISA names. Raises ValueError for an unknown
    name, RuntimeError for an instruction set that this machine lacks.
    """
    return native_module.cpu_isa()


def machine_isas() -> list[str]:
    """All instruction sets that this machine can run, the simplest first."""
    return native_module.machine_isas()


def cuda_runtime() -> int:
    """Version of the linked CUDA runtime, 13000 for 13.0; 0 without CUDA."""
    return int(native_module.cuda_runtime)


def cuda_archs() -> list[str]:
    """CUDA architectures of this build, `["80", "90", ...]`; empty without CUDA."""
    return [arch for arch in native_module.cuda_archs.split(",") if arch]


def report() -> dict[str, Any]:
    """{"implementations": op -> device -> the name that would run now, "cpu_isa": str, "cuda_archs": list[str]}."""
    return {"implementations": dispatch.table(), "cpu_isa": cpu_isa(), "cuda_archs": cuda_archs()}
