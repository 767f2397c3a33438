"""RUN/loss.png: the loss of each step with its running mean, held-out losses and baselines."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from dnagpt_fast.plot_style import (
    BLACK,
    BLUE,
    GREY,
    MANY,
    MIDDLE,
    PURPLE,
    RED,
    VECTOR,
    count_axis,
    legend_below,
    new_figure,
)
from dnagpt_fast.training.log import read_metrics

FILE = "loss.png"
LEVELS = ((GREY, ":"), (RED, "--"), (PURPLE, "-."))
MOST_SHARE = 0.02
"""Of the time of a run, at most this is spent on drawing while it runs."""


def running_means(values: Sequence[float], share: float = 0.05) -> list[float]:
    """Exponential means with weight `share` for a new value, corrected for the start (Kingma and Ba 2015,
    section 3).

    >>> running_means([4.0, 2.0], share=0.5)
    [4.0, 2.6666666666666665]
    """
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total += (value - total) * share
        weight += (1 - weight) * share
        means.append(total / weight)
    return means


def draw_losses(
    run: Path,
    name: str,
    label: str,
    lines: Mapping[str, float],
    points: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    *,
    title: str = "",
    scale: float = 1.0,
    vector: bool = True,
) -> Path | None:
    """Draws RUN/loss.png and loss.svg: the entry `name` of metrics.jsonl over the steps, and its running mean.

    label    of the vertical axis, with the unit
    lines    label -> height of a horizontal line
    points   label -> (steps done, value) of a line with dots
    scale    the entries are multiplied by it
    vector   False: only the .png

    Last values and heights are in the legend. Returns None if there are no records yet.
    """
    records = read_metrics(run)
    if not records:
        return None
    steps = [record["step"] + 1 for record in records]
    values = [record[name] * scale for record in records]
    means = running_means(values)
    with new_figure(run / FILE, MIDDLE, 3.3, beside=(VECTOR,) if vector else ()) as figure:
        axes = figure.add_subplot()
        axes.plot(
            steps,
            values,
            color=BLUE,
            alpha=0.25,
            linewidth=0.6,
            label="each step",
            rasterized=len(steps) > MANY,
        )
        axes.plot(steps, means, color=BLUE, label=f"running mean {means[-1]:.4f}")
        for text, places in (points or {}).items():
            if not places:
                continue
            axes.plot(
                *zip(*places, strict=True),
                color=BLACK,
                marker="o",
                linewidth=0.8,
                label=f"{text} {places[-1][1]:.4f}",
            )
        for i, (text, level) in enumerate(lines.items()):
            colour, dashes = LEVELS[i % len(LEVELS)]
            axes.axhline(level, color=colour, linestyle=dashes, linewidth=1, label=f"{text} {level:.4f}")
        axes.set(xlabel="optimizer step", ylabel=label, title=title)
        axes.grid()
        count_axis(axes.xaxis)
        legend_below(axes, 2)
    return run / FILE


class Redrawing:
    """Draws while a run goes on, as often as it takes at most MOST_SHARE of the time.

    draw  draws the curve from the files of the run
    """

    def __init__(self, draw: Callable[[], object], console: Console) -> None:
        self._draw, self._console = draw, console
        self._next_s = time.monotonic() + 1 / MOST_SHARE  # the first drawing takes about a second

    def __call__(self) -> None:
        """Draws if it is time. A figure that cannot be written is a warning: it must not end a run."""
        begun = time.monotonic()
        if begun < self._next_s:
            return
        try:
            self._draw()
        except OSError as error:
            self._console.print(f"warning: {FILE} is not redrawn: {error}", style="yellow", soft_wrap=True)
        now = time.monotonic()
        self._next_s = now + (now - begun) / MOST_SHARE
