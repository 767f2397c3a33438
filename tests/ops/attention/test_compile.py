"""The attention kernels compiled for every card: the kept table obeys the rules, and the compiler still gives it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_attention

ROOT = Path(__file__).resolve().parents[3]
TABLE = ROOT / "benchmarks" / "compile_audit.json"
CARDS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942")
PASSES = ("attention_forward_kernel", "attention_dq_kernel", "attention_dkdv_kernel")


def kept() -> dict[str, dict[str, int]]:
    rows = json.loads(TABLE.read_text())["rows"]
    return {key: row for key, row in rows.items() if key.startswith("attention")}


def audit(*arguments: str) -> str:
    """Runs the audit in its own process, where Triton compiles, and returns its output. Fails if the audit fails."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.compile_audit", "--op", "attention", *arguments],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    return run.stdout


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_table_has_every_pass_and_obeys_the_rules(card, size):
    rows = {key: row for key, row in kept().items() if key.endswith(card) and f"| K{size} " in key}
    for kernel in PASSES:
        assert rows[f"{kernel} | K{size} bfloat16 causal short | {card}"]["tensor_core"] > 0
    for key, row in rows.items():
        assert (row["spills"], row["stack_bytes"], row["atomics"]) == (0, 0, 0), key
        assert row["occupancy"] > 0, key
        if card != "gfx942":
            # without fused multiply-add each exponential would need an extra product and sum
            assert row["fused_multiply_add"] >= row["exp2"] / 4, key


def test_descriptors_and_warp_specialisation_are_there():
    rows = kept()
    assert rows["attention_forward_kernel | K64 bfloat16 causal short | sm_90"]["tma"] > 0
    blackwell = rows["attention_forward_kernel | K64 bfloat16 causal short | sm_100"]
    # with specialisation the block has more than the 8 warps requested
    assert blackwell["threads"] > 8 * 32
    assert blackwell["tma"] > 0


def test_the_compiler_still_gives_the_kept_row():
    output = audit("--arch", "sm_90", "--case", "forward.*K32 bfloat16 causal short")
    assert "1 kernels, 0 complaints" in output


def test_a_worse_row_fails(tmp_path):
    key = "attention_decode_combine_kernel | K32 bfloat16 decode | sm_80"
    table = json.loads(TABLE.read_text())
    table["rows"] = {key: table["rows"][key] | {"registers": 8}}
    worse = tmp_path / "table.json"
    worse.write_text(json.dumps(table))
    with pytest.raises(AssertionError, match=r"registers 8 -> \d+"):
        audit("--arch", "sm_80", "--case", "^" + re.escape(key), "--table", str(worse))


@pytest.mark.slow
def test_the_whole_table():
    assert " 0 complaints" in audit()


def test_the_report_for_a_card_runs_on_this_machine():
    shapes = [gpu_attention.Shape(1, 2, 40, 32)]

    def clock(function):
        function()
        return 1.0

    rows = list(gpu_attention.rows(shapes, torch.float32, "cpu", clock))
    assert [row["contender"] for row in rows] == ["plain torch", "ours (sdpa)"]
    # 2 products of 2 x B x H x T^2 x K FLOP, half of them above the diagonal
    assert rows[1]["forward_tflops"] == pytest.approx(2 * 2 * 2 * 40**2 * 32 / 2 / 1e12)


def test_the_report_refuses_a_wrong_result():
    qkv, do = gpu_attention.inputs(gpu_attention.Shape(1, 2, 40, 32), torch.float32, "cpu")
    with pytest.raises(AssertionError, match="o: error"):
        gpu_attention.check(lambda q, k, v: v + 0 * (q + k), qkv, do)


def test_the_decoding_report_runs_on_this_machine():
    rows = list(
        gpu_attention.decode_rows(
            [gpu_attention.Cached(2, 3, 40, 32)], torch.float32, "cpu", lambda f: f() is not None
        )
    )
    assert [row["contender"] for row in rows] == ["plain torch", "ours (grouped)"]
    # keys and values, 2 sequences x 3 heads x 40 tokens x 32 numbers of 4 bytes, in the one second of this clock
    assert rows[1]["gb_per_s"] == pytest.approx(2 * 2 * 3 * 40 * 32 * 4 / 1e9)
