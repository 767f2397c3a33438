"""The stored table of compiled kernels: it has every kernel and card, no row breaks a law, and the pages fit it."""

import ast
import json
from functools import cache
from pathlib import Path

import pytest

from benchmarks import roofline
from benchmarks.audit_page import page
from benchmarks.triton_launches import ARCHITECTURES
from tests.ops.attention import test_ptx as test_attention_ptx
from tests.ops.combined_loss import test_ptx as test_combined_loss_ptx
from tests.ops.mlp import test_ptx as test_mlp_ptx
from tests.ops.residual_norm import test_ptx as test_residual_norm_ptx
from tests.ops.sampling import test_ptx as test_sampling_ptx

ROOT = Path(__file__).resolve().parents[2]
TABLE = json.loads((ROOT / "benchmarks" / "compile_audit.json").read_text())
ROWS = TABLE["rows"]
# kernels without a product: they add parts or finish a few sums
WITHOUT_PRODUCT = {
    "attention_decode_combine_kernel",
    "attention_extend_kernel",  # one query: its products are sums of a row
    "combined_loss_combine_kernel",
    "combined_loss_count_kernel",
    "combined_loss_softmax_kernel",
    "sampling_next_tokens_kernel",
    "sampling_advance_lanes_kernel",
    "combined_loss_finish_kernel",
    "residual_norm_forward_kernel",
    "residual_norm_backward_kernel",
    "residual_norm_sum_kernel",
}


@cache
def kernels() -> set[str]:
    """Names of the functions that are launched: @triton.jit, named `..._kernel`."""
    found = set()
    for file in (ROOT / "dnagpt_fast" / "ops").glob("*/*kernel*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel"):
                decorators = [ast.unparse(line) for line in node.decorator_list]
                assert decorators == ["triton.jit(do_not_specialize=COUNTS)"], node.name
                found.add(node.name)
    return found


def test_every_kernel_is_compiled_for_every_card():
    compiled = {(key.split(" | ")[0].split(" (")[0], key.rsplit(" | ")[-1]) for key in ROWS}
    assert compiled >= {(kernel, card) for kernel in kernels() for card in ARCHITECTURES}


def test_every_kernel_runs_as_compiled_code_on_the_cpu():
    proofs = (
        test_attention_ptx,
        test_combined_loss_ptx,
        test_mlp_ptx,
        test_residual_norm_ptx,
        test_sampling_ptx,
    )
    assert kernels() == {kernel for proof in proofs for kernel in proof.WRITTEN}


@pytest.mark.parametrize("card", ARCHITECTURES)
def test_no_row_breaks_a_law(card):
    for key, row in ROWS.items():
        kernel, case, where = key.split(" | ")
        kernel = kernel.split(" (")[0]  # launched again with other compile-time arguments
        if where != card or kernel not in kernels():
            continue
        assert (row["spills"], row["stack_bytes"], row["atomics"]) == (0, 0, 0), key
        assert row["occupancy"] > 0, key
        if kernel not in WITHOUT_PRODUCT and "float32" not in case:
            assert row["tensor_core"] > 0, key


def test_the_page_is_the_table():
    text = (ROOT / "benchmarks" / "compile_audit.md").read_text()
    assert text == page(TABLE["compilers"], ROWS), "remake it: python -m benchmarks.compile_audit --update"


def test_the_roofline_is_made_from_the_table():
    text = (ROOT / "benchmarks" / "roofline.md").read_text()
    assert text == roofline.page(TABLE), "remake it: python -m benchmarks.roofline"


def test_the_lowest_limit_decides():
    card = roofline.Card("made up", "sm_90", 10, 1.0, 1000)
    # 1,000 GB/s at 2 bytes, 1,280 G instructions a second at 4, 640 G integer ones at 1
    assert roofline.bound(card, 2, 4, 1) == ([500e9, 320e9, 640e9], 0.64)
