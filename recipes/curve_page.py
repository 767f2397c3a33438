"""The tables and the figure of docs/learning_curves.md, from the finished runs of learning_curves.py."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from curve_journal import Run, chosen_rate, finished_runs
from curve_tasks import CurveTask, made_task
from stage import write_measured

from dnagpt_fast.evaluation.scores import RESAMPLES, Score, resampled
from dnagpt_fast.plot_style import BLUE, GREY, ORANGE, RED, SKY, TWO_COLUMNS, letter_panels, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURE = "learning_curves.png"
PRETRAINED, COMPOSED, OFFICIAL = "pre-trained", "composed", "official"
FROZEN_PRETRAINED, FROZEN_COMPOSED = "frozen pre-trained", "frozen composed"
COLOURS = {
    PRETRAINED: (BLUE, "o"),
    COMPOSED: (ORANGE, "^"),
    OFFICIAL: (RED, "v"),
    FROZEN_PRETRAINED: (SKY, "s"),
}
"""Colour and marker of each method that the figure shows and that is no plain baseline."""
ORDER = (PRETRAINED, COMPOSED, OFFICIAL, FROZEN_PRETRAINED, FROZEN_COMPOSED)
"""Every method that is no plain baseline, as the tables list them."""
PAIRS = ((PRETRAINED, COMPOSED), (PRETRAINED, OFFICIAL), (FROZEN_PRETRAINED, FROZEN_COMPOSED))
MEASURES = {"mcc": "MCC", "accuracy": "accuracy", "squared_pearson": "squared Pearson r"}
COLUMNS = 3

Cell = dict[int, tuple[float, np.ndarray]]
"""Seed -> the score of all rows, and that of each resample."""


@dataclass(frozen=True)
class Panel:
    """A tested set of a task. cells: by method and size."""

    title: str
    task: CurveTask
    measure: str
    rows: int
    cells: dict[tuple[str, int], Cell]

    @property
    def methods(self) -> list[str]:
        return ordered(method for method, _ in self.cells)

    def score(self, method: str, size: int) -> Score | None:
        """Mean over the seeds, with the 95 % interval of the resamples of rows."""
        cell = self.cells.get((method, size))
        return _score(list(cell.values())) if cell else None

    def difference(self, first: str, second: str, size: int) -> tuple[Score, list[float]] | None:
        """first - second on the same rows and seeds, and the difference of each seed."""
        one, other = self.cells.get((first, size), {}), self.cells.get((second, size), {})
        pairs = [(one[s][0] - other[s][0], one[s][1] - other[s][1]) for s in one if s in other]
        return (_score(pairs), [value for value, _ in pairs]) if pairs else None


def ordered(methods: Iterable[str]) -> list[str]:
    """Each method once: those of ORDER, then the plain baselines by name. Runs come in any order."""
    found = set(methods)
    return [method for method in ORDER if method in found] + sorted(found.difference(ORDER))


def _score(parts: Sequence[tuple[float, np.ndarray]]) -> Score:
    value = float(np.mean([one for one, _ in parts]))
    low, high = np.percentile(np.mean([samples for _, samples in parts], axis=0), [2.5, 97.5])
    return Score(value, float(low), float(high))


def scores_of(measure: str, truth: np.ndarray, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """float64 (R,): the score of each of R resamples. truth, values: (n,), the class and the probability of the second
    class, or two values; counts: (R, n), how often a resample has a row."""
    if measure == "squared_pearson":
        t, p = truth - truth.mean(), values - values.mean()
        sums = counts @ np.stack([np.ones_like(t), t, p, t * t, p * p, t * p], 1)
        n, st, sp, tt, pp, tp = sums.T
        spread = (n * tt - st**2) * (n * pp - sp**2)
        return np.where(spread > 0, (n * tp - st * sp) ** 2 / np.where(spread > 0, spread, 1), 0.0)
    guess = values > 0.5
    kinds = (truth == 1) & guess, (truth == 0) & guess, (truth == 1) & ~guess, (truth == 0) & ~guess
    tp, fp, fn, tn = (counts @ np.stack(kinds, 1).astype(np.float64)).T
    if measure == "accuracy":
        return (tp + tn) / (tp + fp + fn + tn)
    spread = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return np.where(spread > 0, (tp * tn - fp * fn) / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)


def panels_of(task: CurveTask, runs: Iterable[Run]) -> list[Panel]:
    runs = list(runs)
    found = []
    for part in task.tested:
        truth = task.truth(part)
        strata = None if task.kind == "regression" else truth
        draws = resampled(len(truth), RESAMPLES, 0, task.clusters[part], strata)
        every = np.ones((1, len(truth)))
        counts = np.concatenate([every, [np.bincount(rows, minlength=len(truth)) for rows in draws]])
        cells: dict[tuple[str, int], Cell] = {}
        for run in runs:
            scores = scores_of(task.measure, truth, np.array(run.values[part]), counts)
            cells.setdefault((run.method, run.size), {})[run.seed] = float(scores[0]), scores[1:]
        title = task.name if part == "test" else f"{task.name} of {part}"
        found.append(Panel(title, task, task.measure, len(truth), cells))
    return found


Rates = dict[str, dict[str, float | None]]
"""Task -> start -> the chosen learning rate."""


def read_panels(settings: dict[str, Any], out: Path) -> tuple[list[Panel], dict[str, list[Run]], Rates]:
    """Of all finished runs with the chosen rate of their task and start; all runs of each task; and the rates."""
    runs = {name: finished_runs(settings, name, out) for name in settings["tasks"]}
    rates = {
        name: {start: chosen_rate(settings, some, start) for start in settings["starts"]}
        for name, some in runs.items()
    }
    panels = []
    for name, some in runs.items():
        task = made_task(settings, name, out) if some else None
        if task is not None:
            kept = [run for run in some if run.method not in rates[name] or run.lr == rates[name][run.method]]
            panels += panels_of(task, kept)
    return panels, runs, rates


# Tables


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def signed(score: Score) -> str:
    mark = " *" if score.low > 0 or score.high < 0 else ""
    return f"{score.value:+.3f} ({score.low:+.3f} to {score.high:+.3f}){mark}"


def _by_size(size: int) -> int:
    return size or 1 << 62


def label(size: int) -> str:
    return f"{size:,}" if size else "all"


def page_text(
    settings: dict[str, Any], panels: list[Panel], runs: Mapping[str, list[Run]], rates: Rates
) -> str:
    sizes = sorted({size for panel in panels for _, size in panel.cells}, key=_by_size)
    parts = [
        f"![Scores over the number of labels]({FIGURE})",
        "### What pre-training adds",
        gains(panels, sizes),
    ]
    parts.append(differences(panels, sizes))
    parts.append("### Scores")
    for panel in panels:
        shown = [n for n in sizes if any((m, n) in panel.cells for m in panel.methods)]
        body = [
            [
                method,
                *(
                    "" if (found := panel.score(method, n)) is None else f"{found} {_seeds(panel, method, n)}"
                    for n in shown
                ),
            ]
            for method in panel.methods
        ]
        head = f"#### {panel.title}: {MEASURES[panel.measure]}, {panel.rows:,} test rows"
        parts += [head, table(["", *(f"{label(n)} labels" for n in shown)], body)]
    parts += [
        "### Settings that were chosen",
    ]
    parts += [
        chosen_table(runs, rates),
        "### Rows",
        rows_table(panels),
        "### Time",
        cpu_table(runs, sizes),
    ]
    return "\n\n".join(parts)


def _seeds(panel: Panel, method: str, size: int) -> str:
    values = [value for value, _ in panel.cells[method, size].values()]
    return f"± {np.std(values, ddof=1):.3f}, {len(values)} seeds" if len(values) > 1 else "1 seed"


def gains(panels: list[Panel], sizes: Sequence[int]) -> str:
    """Sentences: on which tasks the interval of a difference is above or below zero."""
    lines = []
    for first, second in PAIRS:
        found: dict[str, dict[str, list[str]]] = {"above": {}, "below": {}}
        asked = 0
        for panel in panels:
            for size in sizes:
                pair = panel.difference(first, second, size)
                if pair is not None:
                    asked += 1
                    side = "above" if pair[0].low > 0 else "below" if pair[0].high < 0 else ""
                    if side:
                        found[side].setdefault(panel.title, []).append(label(size))
        if asked:
            text = "; ".join(
                f"{side} zero: {', '.join(_with_sizes(tasks)) or 'none'}" for side, tasks in found.items()
            )
            lines.append(f"- **{first} minus {second}**, {asked} intervals: {text}.")
    return "\n".join(lines)


def _with_sizes(tasks: Mapping[str, list[str]]) -> Iterator[str]:
    for name, sizes in tasks.items():
        yield f"{name} ({'; '.join(sizes)})"


def differences(panels: list[Panel], sizes: Sequence[int]) -> str:
    rows = []
    for panel in panels:
        for size in sizes:
            found = [panel.difference(first, second, size) for first, second in PAIRS]
            plain = best_baseline(panel, size)
            found.append(panel.difference(PRETRAINED, plain, size) if plain else None)
            if any(found):
                texts = [f"{signed(pair[0])}, {len(pair[1])}" if pair else "" for pair in found]
                rows.append([panel.title, label(size), *texts[:3], texts[3] and f"{texts[3]}: {plain}"])
    head = [
        "task",
        "labels",
        *(f"{first} - {second}" for first, second in PAIRS),
        f"{PRETRAINED} - best baseline",
    ]
    return table(head, rows)


def best_baseline(panel: Panel, size: int) -> str | None:
    """The plain baseline with the highest score on these test rows: the strictest comparison."""
    plain = [m for m in panel.methods if m not in ORDER]
    scores = {m: found.value for m in plain if (found := panel.score(m, size)) is not None}
    return max(scores, key=scores.__getitem__) if scores else None


def chosen_table(runs: Mapping[str, list[Run]], rates: Rates) -> str:
    """The learning rate of each task and start; for each size the epoch whose weights were kept, mean of the seeds."""
    rows = []
    for name, of in rates.items():
        for start, rate in of.items():
            kept: dict[int, list[float]] = {}
            for run in runs[name]:
                if run.method == start and run.lr == rate:
                    steps_of_epoch = run.chosen["steps"] / run.chosen["epochs"]
                    kept.setdefault(run.size, []).append(run.chosen["best_step"] / steps_of_epoch)
            if rate is not None:
                epochs = ", ".join(f"{label(n)}: {np.mean(kept[n]):.1f}" for n in sorted(kept, key=_by_size))
                rows.append([name, start, f"{rate:g}", epochs])
    return table(["task", "start", "learning rate", "labels: epoch whose weights were kept"], rows)


def rows_table(panels: list[Panel]) -> str:
    rows = []
    for task in {panel.task.name: panel.task for panel in panels}.values():
        counts, copies = task.facts["counts"], task.facts["copies_left_out"]
        sets = ", ".join(f"{part} {c['rows']:,} of {c['of']:,}" for part, c in counts.items())
        seen = sum(task.facts["seen_left_out"].values())
        rows.append([task.name, sets, f"{copies['train']:,}, {copies['validation']:,}", str(seen)])
    return table(
        ["task", "rows used", "copies left out (training, validation)", "in pre-training's ranges, left out"],
        rows,
    )


def cpu_table(runs: Mapping[str, list[Run]], sizes: Sequence[int]) -> str:
    rows = []
    for name, some in runs.items():
        for method in ordered(run.method for run in some):
            of = {n: [r.cpu_s for r in some if r.method == method and r.size == n] for n in sizes}
            rows.append([name, method, *(f"{np.mean(v):.1f}" if v else "" for v in of.values())])
    total = sum(run.cpu_s for some in runs.values() for run in some)
    count = sum(map(len, runs.values()))
    text = table(["task", "method", *(f"{label(n)} labels" for n in sizes)], rows)
    return f"{count:,} runs, {total:,.0f} CPU s in all. CPU seconds of a run, mean:\n\n{text}"


def cross_species(panels: list[Panel], task: str = "poly_a") -> str:
    """The table of the paper's page: a task's scores in each species, with the most labels of each method."""
    of = [panel for panel in panels if panel.task.name == task]
    rows = []
    for method in of[0].methods if of else ():
        size = max((n for m, n in of[0].cells if m == method), key=_by_size)
        scores = [panel.score(method, size) for panel in of]
        rows.append([method, label(size), *(f"{one} {_seeds(of[0], method, size)}" for one in scores)])
    species = [panel.title.removeprefix(f"{task} of ").replace(task, "human") for panel in of]
    return table(["method", "labels", *species], rows)


# Figure


def draw(path: Path, panels: list[Panel]) -> None:
    lines = -(-len(panels) // COLUMNS)
    with new_figure(path, TWO_COLUMNS, 0.5 + 1.9 * lines) as figure:
        axes = figure.subplots(lines, COLUMNS, squeeze=False)
        for place, panel in zip(axes.flat, panels, strict=False):
            _draw_panel(place, panel)
        for place in axes.flat[len(panels) :]:
            place.set_axis_off()
        handles: dict[str, Any] = {}
        for place in axes.flat[: len(panels)]:
            handles |= {text: line for line, text in zip(*place.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles, loc="outside upper center", ncols=4, frameon=False)
        letter_panels(list(axes.flat[: len(panels)]))


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    largest = len(panel.task.sets["train"])
    baselines = [m for m in panel.methods if m not in ORDER]
    styles = dict(zip(baselines, ("--", ":", "-."), strict=False))
    for method in [*COLOURS, *baselines]:
        sizes = sorted((n or largest, n) for m, n in panel.cells if m == method)
        scores = [panel.score(method, n) for _, n in sizes]
        if not scores:
            continue
        x = [n for n, _ in sizes]
        value, low, high = np.array(scores, float).T
        colour, marker = COLOURS.get(method, (GREY, ""))
        axes.plot(x, value, linestyle=styles.get(method, "-"), marker=marker, color=colour, label=method)
        if method in (PRETRAINED, COMPOSED):
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks([n for n in (100, 300, 1000, largest) if n <= largest])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="training labels", ylabel=MEASURES[panel.measure], title=panel.title)
    axes.grid(True)


def write_page(settings: dict[str, Any], out: Path, page: Path | None) -> None:
    """The tables and the figure of the finished runs, into OUT, or into the page's measured part and beside it."""
    panels, runs, rates = read_panels(settings, out)
    if not panels:
        print("no finished runs")
        return
    text = page_text(settings, panels, runs, rates)
    folder = out if page is None else page.parent
    draw(folder / FIGURE, panels)
    if page is None:
        (out / "learning_curves.md").write_text(f"{text}\n")
        print(text)
    else:
        write_measured(page, text)
        paper = page.with_name("paper.md")
        if paper.exists():
            write_measured(paper, cross_species(panels))
