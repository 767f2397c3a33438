"""Runs Triton kernels that are compiled for a card on the CPU, with tests/ptxrun in place of Triton's launch.

ptxrun checks every memory access, poisons registers and shared memory, searches for races between warps and
shuffles the schedule with a seed.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import triton

from dnagpt_fast.ops import triton_settings
from tests.closeness import assert_no_worse_than_naive
from tests.ptxrun import ptxrun

SEEDS = (0, 1, 2)  # of the order of warps: 0 runs them one after another, others at random


def rerun_without_the_interpreter(test_file: str) -> None:
    """Runs the ptx tests of a file in a process where Triton compiles; for tests that run inside the
    interpreter."""
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


# Deviations of the compilers from the manual that ptxas corrects; any other note fails the test.
KNOWN_NOTES = (
    "registers of a wgmma are copied",
    "a register of a tcgen05.ld is used",
    "a shared address given as a generic one",
    "mbarrier.inval although a tcgen05.commit",
)


@contextmanager
def compiled_on_the_cpu(
    written: Mapping[str, set[str]],
    seed: int = 0,
    *,
    card: str = "sm_80",
    edit: Callable[[str, str], str] | None = None,
) -> Iterator[dict[str, list[ptxrun.Stats]]]:
    """In this context launches run compiled for `card`, with its tiles, on CPU tensors. Yields kernel name -> counts of
    each launch.

    written: kernel name -> parameters it may write; a write to any other tensor is an error
    edit: (kernel name, PTX) -> the PTX to run instead
    """
    from benchmarks.triton_launches import Launch, launches_go_to, target_of

    ran: dict[str, list[ptxrun.Stats]] = {}

    def argument(name: str, key: str, value: Any) -> Any:
        is_array = isinstance(value, torch.Tensor) or hasattr(value, "block_shape")
        return ptxrun.ReadOnly(value) if is_array and key not in written[name] else value

    def take(launch: Launch) -> None:
        name, compiled = launch.kernel.__name__, launch.compile()
        names = [key for key, kind in launch.source.signature.items() if kind != "constexpr"]
        arguments = [argument(name, key, x) for key, x in zip(names, launch.runtime, strict=True)]
        ptx = edit(name, compiled.asm["ptx"]) if edit else None
        stats = ptxrun.launch_triton(compiled, launch.grid, arguments, ptx=ptx, seed=seed, race=True)
        unknown = [note for note in stats["notes"] if not any(known in note for known in KNOWN_NOTES)]
        assert not unknown, f"{name}: {unknown}"
        ran.setdefault(name, []).append(stats)

    with (
        mock.patch.object(triton_settings, "architecture", return_value=card),
        launches_go_to(target_of(card), take),
    ):
        yield ran


def assert_right_under_every_schedule(
    written: Mapping[str, set[str]],
    function: Callable[[], Mapping[str, torch.Tensor | None]],
    naive: Mapping[str, torch.Tensor],
    truth: Mapping[str, torch.Tensor],
    *,
    card: str = "sm_80",
    seeds: Sequence[int] = SEEDS,
) -> list[dict[str, list[ptxrun.Stats]]]:
    """Runs `function`, compiled for `card`, once a seed; what ran each time.

    Every result obeys the 2x rule (tests/closeness.py) beside the same of plain torch, and has the bits of the first
    run. Results are name -> tensor; those that `truth` does not name are not compared.
    """
    runs_of_all, first = [], None
    for seed in seeds:
        with compiled_on_the_cpu(written, seed, card=card) as ran:
            ours = function()
        for name, true in truth.items():
            assert_no_worse_than_naive(name, ours[name], naive[name], true)
            assert first is None or torch.equal(ours[name], first[name]), f"{name} depends on the schedule"
        first = first or ours
        runs_of_all.append(ran)
    return runs_of_all


# the instruction that multiplies tiles in half precision on each card
PRODUCT = {"sm_80": "mma.sync", "sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma"}


def runs(ran: Mapping[str, list[ptxrun.Stats]], kernel: str, opcode: str) -> bool:
    """Whether a launch of `kernel` executed an instruction that starts with `opcode`."""
    return any(name.startswith(opcode) for stats in ran[kernel] for name in stats["opcodes"])
