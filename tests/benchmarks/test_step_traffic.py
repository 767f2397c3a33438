"""The counted traffic of a step: the fused ways move fewer bytes, by what their equations say."""

import re

import pytest

from tests.benchmarks.test_traced_steps import in_a_process_that_compiles


@pytest.mark.slow
def test_the_fused_ways_move_fewer_bytes():
    text = in_a_process_that_compiles("-m", "benchmarks.step_traffic", "--layers", "1")
    rows = {
        cells[0]: [float(cell) for cell in cells[1:]]
        for line in text.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 13
        and re.match(r"\d", cells[1])
    }
    before, fused, half = (rows["in all"][3 * way + 1] for way in range(3))
    assert half < fused < before
    # Bytes an element: a fused norm moves 12 + 16 with the stream in fp32 (its branch has a gradient of its own) and
    # 8 + 8 in bf16; the last one has no other use of its sum, 4 and 2 fewer. The first norm and the sum of its input's
    # gradients, which are not fused: 32 and 16.
    norms = rows["residual additions and norms"]
    elements = 32_768 * 768
    assert norms[4] - norms[7] == pytest.approx((12 + 10 + 16) * elements / 1e9, rel=0.02)
    for kind in ("products", "attention", "GELU", "loss"):
        assert rows[kind][0:3] == rows[kind][3:6] == rows[kind][6:9], kind
    # GELU inside two products: 40 bytes an element of the stream less for GELU, 16 more for what its kernels read and
    # write besides their products' own
    apart, inside = (
        sum(rows[kind][column] for kind in ("products", "GELU", "products with GELU")) for column in (7, 10)
    )
    assert apart - inside == pytest.approx(24 * elements / 1e9, rel=0.02)
    assert rows["products with GELU"][9] == 2
    assert rows["GELU"][9] == 0
    assert rows["products"][9] == rows["products"][6] - 2
