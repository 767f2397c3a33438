"""The loss curve: what it shows, and how often it is drawn while a run goes on."""

import io
import re

import pytest
from rich.console import Console

from dnagpt_fast.training import loss_curve
from dnagpt_fast.training.log import MetricsLog
from dnagpt_fast.training.loss_curve import Redrawing, draw_losses, running_means


def write(run, steps):
    log = MetricsLog(run, 0)
    for step in steps:
        log.write({"step": step, "loss": float(step)})
    log.close()


def texts(path):
    """Matplotlib writes each text as a comment beside its outlines."""
    return [one.strip() for one in re.findall("<!--(.*?)-->", path.read_text(), re.DOTALL)]


def test_the_curve_has_its_values_in_the_legend(tmp_path):
    write(tmp_path, range(30))
    held_out = {"held out": [(10, 1.3), (30, 1.2)]}
    path = draw_losses(
        tmp_path, "loss", "loss (nats)", {"uniform": 1.386}, held_out, title="a run", scale=0.5
    )
    assert path == tmp_path / "loss.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["loss.png", "loss.svg", "metrics.jsonl"]
    mean = running_means([step / 2 for step in range(30)])[-1]
    wanted = {"each step", f"running mean {mean:.4f}", "held out 1.2000", "uniform 1.3860", "a run"}
    assert wanted | {"optimizer step", "loss (nats)"} <= set(texts(tmp_path / "loss.svg"))


def test_without_records_nothing_is_drawn(tmp_path):
    assert draw_losses(tmp_path, "loss", "loss", {}) is None


def test_a_record_without_the_name_is_an_error(tmp_path):
    write(tmp_path, [0])
    with pytest.raises(KeyError):
        draw_losses(tmp_path, "gain", "gain", {})


def test_the_running_mean_is_corrected_for_its_start():
    assert running_means([3.0] * 50) == pytest.approx([3.0] * 50)
    assert running_means([10.0, 0.0]) == pytest.approx([10.0, 10.0 * 0.95 / 1.95])


def test_drawing_takes_a_small_share_of_the_time(monkeypatch):
    clock, drawn = [0.0], []
    monkeypatch.setattr(loss_curve.time, "monotonic", lambda: clock[0])

    def draw():
        drawn.append(clock[0])
        clock[0] += 2  # seconds

    redraw = Redrawing(draw, Console(file=io.StringIO()))
    for second in range(0, 400, 10):
        clock[0] = max(clock[0], second)
        redraw()
    assert drawn == [50, 160, 270, 380]


def test_a_figure_that_cannot_be_written_is_a_warning(monkeypatch):
    clock, said = [0.0], io.StringIO()
    monkeypatch.setattr(loss_curve.time, "monotonic", lambda: clock[0])

    def draw():
        raise OSError("No space left on device")

    redraw = Redrawing(draw, Console(file=said))
    clock[0] = 60
    redraw()
    assert said.getvalue() == "warning: loss.png is not redrawn: No space left on device\n"
