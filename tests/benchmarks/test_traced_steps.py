"""Every launch of a whole step of a published model has a row in the table of compiled kernels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.triton_launches import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[2]
LIST = """
import sys
from benchmarks.compile_audit import named_launches
for architecture in sys.argv[1:]:
    for key, launch in named_launches("steps", architecture):
        print("row:", key)
"""


def in_a_process_that_compiles(*command: str) -> str:
    environment = {**os.environ, "TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return run.stdout


def rows_of_steps(architectures: list[str]) -> set[str]:
    output = in_a_process_that_compiles("-c", LIST, *architectures)
    return {line.removeprefix("row: ") for line in output.splitlines() if line.startswith("row: ")}


def check(architectures: list[str]) -> None:
    table = json.loads((ROOT / "benchmarks" / "compile_audit.json").read_text())["rows"]
    kept = {key for key in table if "| step " in key and key.rsplit(" | ")[-1] in architectures}
    launched = rows_of_steps(architectures)
    assert launched
    remake = "python -m benchmarks.compile_audit --op steps --update"
    assert launched == kept, f"{launched ^ kept}: remake the rows with {remake}"


def test_every_launch_on_an_h100_has_a_row():
    check(["sm_90"])


@pytest.mark.slow
def test_every_launch_on_the_other_cards_has_a_row():
    check([card for card in ARCHITECTURES if card != "sm_90"])


COUNTS = """
from benchmarks.traced_steps import steps, trace
from benchmarks.triton_launches import launches_go_to, target_of
from dnagpt_fast.model.config import ModelConfig
for heads, rows in ((1, 64), (2, 128), (3, 192), (16, 1024)):
    launches = []
    with launches_go_to(target_of("sm_90"), launches.append):
        for step in steps(ModelConfig(19_564, 64, 1, heads, 32 * heads), rows=rows):
            trace(step, "sm_90")
    print("kernels:", sorted(str(x.key) for x in {x.key: x for x in launches if "attention" in x.key[0]}.values()))
"""


@pytest.mark.slow
def test_counts_of_1_2_3_and_16_heads_and_sequences_run_the_same_machine_code():
    output = in_a_process_that_compiles("-c", COUNTS)
    found = [line for line in output.splitlines() if line.startswith("kernels:")]
    assert len(found) == 4
    assert "attention_dkdv_kernel" in found[0]
    assert len(set(found)) == 1
