"""Progress: a bar on a terminal, elsewhere a line every few seconds, and none for short work."""

import io
import re

import pytest
from rich.console import Console

from dnagpt_fast import progress
from dnagpt_fast.progress import Progress


def lines(monkeypatch, seconds: list[float], *, at_once: bool) -> list[str]:
    """The lines for steps that end at these times of the clock; the first time is the start."""
    out, clock = io.StringIO(), iter(seconds)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Progress(Console(file=out, width=200), 0, len(seconds) - 1, at_once=at_once) as shown:
        for done in range(1, len(seconds)):
            shown.update(done, "x")
    return [line.split()[1] for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("seconds", "at_once", "wanted"),
    [
        ([0, 1, 2, 3], True, ["1/3", "3/3"]),
        ([0, 1, 2, 3], False, []),
        ([0, 11, 31, 32, 33], False, ["2/4", "4/4"]),
        ([0, 31, 41, 62, 63], False, ["1/4", "3/4", "4/4"]),
    ],
)
def test_lines_every_few_seconds(monkeypatch, seconds, at_once, wanted):
    assert lines(monkeypatch, seconds, at_once=at_once) == wanted


FIGURES = "loss 9.8129  1.9685 nats/bp  11,446 tokens/s  30,762 bp/s  1% of peak"


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize(("steps", "count"), [(20_000, "10000/20000"), (3_100_000_000, "1.55G/3.10G")])
def test_bar_steps_and_time_left_are_on_every_terminal(width, steps, count):
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=True,
        color_system=None,
        legacy_windows=False,
        _environ={"TERM": "xterm"},
    )
    with Progress(console, 0, steps) as shown:
        shown.update(steps // 2, FIGURES)
    lines = [line for line in re.split(r"[\r\n]", out.getvalue()) if "loss" in line]
    assert lines, out.getvalue()
    line = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", lines[-1])
    assert len(line.rstrip()) <= width
    assert count in line
    for part in ("━", "left", "after 0:00:00", "loss 9.8129"):
        assert part in line, line
    assert ("of peak" in line) == (width >= 200), line


def test_a_terminal_without_a_cursor_gets_lines():
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=True, _environ={"TERM": "dumb"}), 0, 2) as shown:
        shown.update(1, "x")
        shown.update(2, "x")
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["1/2", "2/2"]


def test_figures_are_left_out_from_the_end():
    assert progress.fitting(["loss 1.0", "2 nats", "3 bp/s"], 16) == "loss 1.0  2 nats"
    assert progress.fitting(["loss 1.0"], 3) == ""


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7"), (999, "999"), (1234, "1.23k"), (12_345, "12.3k"), (3.1e9, "3.10G")]
)
def test_large_numbers_are_short(count, text):
    assert progress.shortened(count) == text


def test_no_bar_and_no_line_when_quiet():
    out = io.StringIO()
    for terminal in (True, False):
        with Progress(Console(file=out, quiet=True, force_terminal=terminal), 0, 2) as shown:
            shown.update(1, "x")
            shown.update(2, "x")
    token = progress.quiet.set(True)
    try:
        assert progress.standard_error().quiet
    finally:
        progress.quiet.reset(token)
    assert out.getvalue() == ""
