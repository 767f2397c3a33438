"""The page of figures of an evaluation: for each task the score of every method, with its interval as whiskers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnagpt_fast.output_files import whole
from dnagpt_fast.suites.published import published

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"baseline": "#7f8c8d", "control": "#e0a030", "model": "#1f5fa8", "published": "#a03050"}
COLUMNS = 3
ROW_INCHES = 0.27


def draw(path: Path, report: Mapping[str, Any]) -> None:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    tasks = report["tasks"]
    columns = min(COLUMNS, len(tasks))
    lines = -(-len(tasks) // columns)
    tallest = max(len(_rows(report["suite"], task)) for task in tasks)
    size = (5.6 * columns, 0.6 + lines * (0.9 + ROW_INCHES * tallest))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12))
    axes = figure.subplots(lines, columns, squeeze=False)
    for place, task in zip(axes.flat, tasks, strict=False):
        _draw_task(place, report["suite"], task)
    for place in axes.flat[len(tasks) :]:
        place.set_axis_off()
    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="", label=role) for role, colour in COLOURS.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _rows(suite: str, task: Mapping[str, Any]) -> list[tuple[str, str, list[float]]]:
    """(name, role, [value, low, high]); published numbers have no interval."""
    rows = [(one["method"], one["role"], one["scores"][task["measure"]]) for one in task["results"]]
    numbers = published(suite, task["task"], task["measure"])
    return rows + [(f"{one.model} (published)", "published", [one.value] * 3) for one in numbers]


def _draw_task(axes: "Axes", suite: str, task: Mapping[str, Any]) -> None:
    rows = _rows(suite, task)
    for y, (_, role, (value, low, high)) in enumerate(rows):
        colour = COLOURS[role]
        axes.hlines(y, low, high, color=colour, linewidth=2, alpha=0.55)
        axes.plot([value], [y], "o" if role != "published" else "D", color=colour, markersize=5)
        axes.annotate(f"{value:.3f}", (high, y), (5, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=7.5)
    axes.invert_yaxis()
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    axes.margins(x=0.14)
    axes.tick_params(axis="x", labelsize=7.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    better = "" if task["rising"] else ", lower is better"
    axes.set_title(f"{task['task']}  ({task['measure']}{better}; {task['rows']:,} rows)", fontsize=9)
