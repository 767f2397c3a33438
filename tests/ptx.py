"""Run Triton kernels, compiled for sm_80, on the CPU by ptxrun, in place of Triton's launch.

ptxrun checks every access, poisons registers and shared memory, looks for races between warps and shuffles the schedule
by a seed. Its folder is named by the environment variable DNAGPT_PTXRUN.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch
import triton

VARIABLE = "DNAGPT_PTXRUN"


def folder() -> Path:
    """ptxrun's folder; skips the test where the variable is not set."""
    named = os.environ.get(VARIABLE)
    if not named:
        pytest.skip(f"{VARIABLE} does not name the folder of ptxrun")
    path = Path(named)
    if not (path / "ptxrun.py").is_file():
        pytest.fail(f"{VARIABLE}={named}: no ptxrun.py there")
    return path


def ptxrun() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ptxrun", folder() / "ptxrun.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault("ptxrun", importlib.util.module_from_spec(spec))
    if not hasattr(module, "launch_triton"):
        spec.loader.exec_module(module)
    return module


def rerun_without_the_interpreter(test_file: str) -> None:
    """Run the ptx tests of a file in a process where Triton compiles; for a test that runs inside the interpreter."""
    folder()
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "ptx", "-p", "no:cacheprovider", test_file],
        env={**os.environ, "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
    assert "skipped" not in run.stdout, run.stdout[-2000:]


def interpreting() -> bool:
    return bool(triton.knobs.runtime.interpret)


@contextmanager
def compiled_on_the_cpu(
    written: Mapping[str, set[str]], seed: int = 0, race: bool = True
) -> Iterator[dict[str, int]]:
    """Launches inside the block run compiled, on CPU tensors. Yields kernel name -> times it ran.

    written: kernel name -> parameters it may write; a write to any other tensor is an error.
    """
    from benchmarks.triton_launches import Launch, launches_go_to, target_of

    run = ptxrun()
    ran: dict[str, int] = {}

    def take(launch: Launch) -> None:
        name = launch.kernel.__name__
        names = [key for key, kind in launch.source.signature.items() if kind != "constexpr"]
        arguments = [
            run.ReadOnly(value) if isinstance(value, torch.Tensor) and key not in written[name] else value
            for key, value in zip(names, launch.runtime, strict=True)
        ]
        run.launch_triton(launch.compile(), launch.grid, arguments, seed=seed, race=race)
        ran[name] = ran.get(name, 0) + 1

    with launches_go_to(target_of("sm_80"), take):
        yield ran
