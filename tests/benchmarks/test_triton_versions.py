"""The page of several versions of Triton keeps the cells that a run does not make."""

from benchmarks.triton_versions import PAGE, cells_of, page

CELLS = {
    ("3.10.0", "sm_90"): "2026-11-26: 140 kernels, 255 registers",
    ("3.9.0", "sm_90"): "2026-11-26: 140 kernels, 255 registers; some_kernel, K64, sm_90: 2 spills",
    ("3.9.0", "sm_80"): "2026-11-26: 150 kernels, 255 registers",
}


def test_versions_in_order_and_empty_cells():
    rows = [line for line in page(CELLS).splitlines() if line.startswith("|")]
    assert rows[0] == "| Triton | sm_80 | sm_90 |"
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| 3.9.0", "| 3.10.0"]
    assert rows[3].startswith("| 3.10.0 |  | 2026-11-26")


def test_a_page_read_again_has_the_same_cells():
    assert cells_of(page(CELLS)) == CELLS


def test_the_stored_page_is_one_of_these():
    text = PAGE.read_text()
    assert page(cells_of(text)) == text
