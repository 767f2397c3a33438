"""The predicted times: parts by hand, what a setting changes, and the table of docs/scaling.md."""

from pathlib import Path

import pytest

from dnagpt_fast.model.config import preset
from dnagpt_fast.planning.accelerators import accelerator
from dnagpt_fast.planning.flops import step_flops
from dnagpt_fast.planning.predicted import (
    ELEMENTWISE,
    SHARES,
    predicted_parts,
    predicted_token,
    shares_of,
)

M = preset("dna_gpt0.1b_m")
SCALING = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"


def of(rows):
    return {row["part"]: row for row in rows}


def test_parts_by_hand():
    rows = of(predicted_parts(M, 64, "h100"))
    flops = step_flops(M, 64, 512)
    assert rows["products"]["ms"] == pytest.approx(flops.blocks / (989e12 * 0.61) * 1e3)
    assert rows["elementwise"]["ms"] == pytest.approx(96 * 12 * 32_768 * 768 / (3350e9 * 0.84) * 1e3)
    assert rows["loss"]["tflop"] == pytest.approx(6 * 32_768 * 768 * 19_564 / 1e12)
    parts = [row["ms"] for name, row in rows.items() if name not in ("launches", "step")]
    assert rows["step"]["ms"] == pytest.approx(sum(parts))
    assert rows["step"]["tokens_per_s"] == pytest.approx(32_768 / rows["step"]["ms"] * 1e3)
    assert rows["step"]["share_of_peak"] == pytest.approx(flops.total / (rows["step"]["ms"] / 1e3) / 989e12)


def test_what_the_settings_change():
    def ms(part="step", samples=64, **settings):
        return of(predicted_parts(M, samples, "h100", **settings))[part]["ms"]

    assert ms("loss", recomputing_loss=True) > 1.5 * ms("loss")
    assert ms("loss", loss_tokens=4104) < 0.25 * ms("loss")
    times = [ms("elementwise", elementwise=name) for name in ELEMENTWISE]
    assert times == sorted(times, reverse=True)
    # a tiny step waits for its launches, unless they are one graph
    assert ms(samples=1) == ms("launches", samples=1)
    assert ms(samples=1, graphed=True) < ms(samples=1)
    with pytest.raises(ValueError, match="elementwise = 'none'"):
        ms(elementwise="none")
    with pytest.raises(ValueError, match="unknown GPU"):
        predicted_parts(M, 8, "tpu")


def test_other_cards_take_the_shares_of_the_nearest_one():
    assert shares_of(accelerator("a100-40g")) == SHARES["a100"]
    assert shares_of(accelerator("l40s")) == SHARES["rtx4090"]
    assert shares_of(accelerator("h200")) == SHARES["h100"]


def test_a_token_takes_the_longer_of_bytes_and_launches():
    small, large = (predicted_token(M, lanes, 256, "h100") for lanes in (1, 2048))
    assert small["launches"] == 97
    assert small["ms"] == pytest.approx(97 * 0.0022)
    assert large["ms"] == pytest.approx(large["gb"] / (3350 * 0.84) * 1e3)


def test_the_table_of_the_page_is_the_prediction():
    """Each row of docs/scaling.md, to the digits it shows."""
    rows = [line for line in SCALING.read_text().splitlines() if line.startswith("| `dna_gpt")]
    rows = [line for line in rows if line.count("|") == 14]
    assert len(rows) == 16
    for line in rows:
        name, batch, gpu, *cells = (cell.strip(" `") for cell in line.strip("|").split("|"))
        config = preset(name)
        found = of(predicted_parts(config, int(batch.split(" x ")[0]), gpu))
        step = found["step"]
        parts = ("products", "elementwise", "attention", "loss", "optimizer", "rest", "step")
        assert cells[:7] == [f"{found[part]['ms']:.1f}" for part in parts]
        assert cells[7] == f"{step['tokens_per_s'] / 1e3:,.0f} k"
        assert cells[8] == f"{step['share_of_peak']:.0%}"
        memory = f"{step['memory_gib']:.1f} GiB"
        assert cells[9] == (
            memory if step["memory_gib"] < accelerator(gpu).memory_gib else f"{memory}, does not fit"
        )
