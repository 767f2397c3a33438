"""The page of figures of an evaluation: for each task the score of every method, with its interval as whiskers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnagpt_fast.plot_style import BLUE, GREY, ORANGE, PURPLE, REFERENCE, new_figure
from dnagpt_fast.suites.published import published

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROLES = {
    "baseline": (GREY, "s"),
    "control": (ORANGE, "^"),
    "model": (BLUE, "o"),
    "published": (PURPLE, "D"),
}
"""Colour and marker of each role: readable in black and white too."""
CHANCE = {"auroc": 0.5, "mcc": 0.0, "spearman": 0.0, "pair_accuracy": 0.5, "nats_per_bp": math.log(4)}
"""Of a method that knows nothing, for measures whose chance does not depend on the data: a dashed line."""
COLUMNS = 3
ROW_INCHES = 0.22


def draw(path: Path, report: Mapping[str, Any], *, beside: Sequence[str] = ()) -> None:
    from matplotlib.lines import Line2D

    tasks = report["tasks"]
    columns = min(COLUMNS, len(tasks))
    lines = -(-len(tasks) // columns)
    rows = [
        [_rows(report["suite"], task) for task in tasks[i : i + columns]]
        for i in range(0, len(tasks), columns)
    ]
    tallest = [max(map(len, line)) for line in rows]
    height = 0.5 + sum(0.75 + ROW_INCHES * most for most in tallest)
    with new_figure(path, 0.9 + 3.9 * columns, height, beside=beside) as figure:
        figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.08)
        axes = figure.subplots(lines, columns, squeeze=False, height_ratios=[most + 2 for most in tallest])
        for place, task in zip(axes.flat, tasks, strict=False):
            _draw_task(place, report["suite"], task)
        for place in axes.flat[len(tasks) :]:
            place.set_axis_off()
        used = {role for line in rows for task in line for _, role, _ in task}
        handles = [
            Line2D([], [], color=colour, marker=marker, linestyle="", label=role)
            for role, (colour, marker) in ROLES.items()
            if role in used
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)


def _rows(suite: str, task: Mapping[str, Any]) -> list[tuple[str, str, list[float]]]:
    """(name, role, [value, low, high]); published numbers have no interval."""
    rows = [(one["method"], one["role"], one["scores"][task["measure"]]) for one in task["results"]]
    numbers = published(suite, task["task"], task["measure"])
    return rows + [(f"{one.model} (published)", "published", [one.value] * 3) for one in numbers]


def _draw_task(axes: "Axes", suite: str, task: Mapping[str, Any]) -> None:
    rows = _rows(suite, task)
    for y, (_, role, (value, low, high)) in enumerate(rows):
        colour, marker = ROLES[role]
        axes.hlines(y, low, high, color=colour, linewidth=2, alpha=0.5)
        axes.plot([value], [y], marker, color=colour, markersize=4.5)
        axes.annotate(
            f"{value:.3f}", (high, y), (5, 0), textcoords="offset points", va="center", fontsize=6.5
        )
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if task["measure"] in CHANCE:
        axes.axvline(CHANCE[task["measure"]], **REFERENCE)
    axes.grid(axis="x")
    axes.margins(x=0.16)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    better = "" if task["rising"] else ", lower is better"
    axes.set_title(f"{task['task']}\n{task['measure']}{better}; n = {task['rows']:,}")
