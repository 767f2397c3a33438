"""Progress without a terminal: a line every few seconds, and none for short work."""

import io

import pytest
from rich.console import Console

from dnagpt_fast.training import progress
from dnagpt_fast.training.progress import TrainingProgress


def lines(monkeypatch, seconds: list[float], *, at_once: bool) -> list[str]:
    """The lines for steps that end at these times of the clock; the first time is the start."""
    out, clock = io.StringIO(), iter(seconds)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with TrainingProgress(Console(file=out, width=200), 0, len(seconds) - 1, at_once=at_once) as shown:
        for done in range(1, len(seconds)):
            shown.update(done, "x")
    return [line.split()[1] for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("seconds", "at_once", "wanted"),
    [
        ([0, 1, 2, 3], True, ["1/3", "3/3"]),
        ([0, 1, 2, 3], False, []),
        ([0, 4, 11, 12, 13], False, ["2/4", "4/4"]),
        ([0, 11, 12, 22, 23], False, ["1/4", "3/4", "4/4"]),
    ],
)
def test_lines_every_few_seconds(monkeypatch, seconds, at_once, wanted):
    assert lines(monkeypatch, seconds, at_once=at_once) == wanted
