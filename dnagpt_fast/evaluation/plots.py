"""Figures of a fine-tuning report; each file is written completely or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dnagpt_fast.evaluation.haplotype_statistics import HaplotypeReport
from dnagpt_fast.evaluation.scores import Score
from dnagpt_fast.extras import need
from dnagpt_fast.plot_style import (
    BLACK,
    BLUE,
    MANY,
    ONE_COLUMN,
    REFERENCE,
    SHADES,
    TWO_COLUMNS,
    legend_below,
    letter_panels,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COUNTED = 12
"""Confusion matrices of more classes have no numbers: they would not fit."""


def plot_classification(
    path: str | Path,
    truth: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    scores: Mapping[str, Score] | None = None,
    *,
    beside: Sequence[str] = (),
) -> Path:
    """ROC and precision-recall curves of each class (of two classes: of the second) with their areas, and the confusion
    matrix.

    scores  auroc and auprc with their intervals, for the legend of two classes and the titles of several
    beside  further endings: the same figure in other forms
    """
    metrics = need("sklearn.metrics")
    shown = [1] if len(classes) == 2 else range(len(classes))
    legend_inches = 0.17 * (3 if len(classes) == 2 else len(classes) + 1)
    with new_figure(path, TWO_COLUMNS, 2.6 + legend_inches, beside=beside) as figure:
        roc, pr, confusion = figure.subplots(1, 3)
        for c in shown:
            positives = truth == c
            style: dict[str, Any] = {"color": BLUE} if len(classes) == 2 else {}
            false, true, _ = metrics.roc_curve(positives, probabilities[:, c])
            area = _area("auroc", metrics.roc_auc_score(positives, probabilities[:, c]), scores, classes)
            roc.plot(false, true, label=f"{classes[c]} {area}", **style)
            precision, recall, _ = metrics.precision_recall_curve(positives, probabilities[:, c])
            area = _area(
                "auprc", metrics.average_precision_score(positives, probabilities[:, c]), scores, classes
            )
            (line,) = pr.plot(recall, precision, label=f"{classes[c]} {area}", **style)
            chance = {**REFERENCE, "color": line.get_color() if len(classes) > 2 else REFERENCE["color"]}
            pr.axhline(
                positives.mean(),
                **chance,
                label=f"chance {positives.mean():.3f}" if len(classes) == 2 else None,
            )
        counted = f", {int((truth == 1).sum()):,} of {len(truth):,} positive" if len(classes) == 2 else ""
        roc.plot([0, 1], [0, 1], **REFERENCE, label="chance 0.500")
        roc.set(xlabel="false positive rate", ylabel="true positive rate")
        roc.set(title=f"ROC{counted}{_mean('auroc', scores, classes)}", aspect="equal")
        pr.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02))
        pr.set(title=f"precision and recall{_mean('auprc', scores, classes)}", box_aspect=1)
        for axes in (roc, pr):
            legend_below(axes)
        matrix = metrics.confusion_matrix(truth, probabilities.argmax(1), labels=range(len(classes)))
        _draw_confusion(confusion, matrix, classes)
        confusion.set_title(f"confusion, n = {len(truth):,}")
    return Path(path)


def _area(name: str, value: float, scores: Mapping[str, Score] | None, classes: Sequence[str]) -> str:
    if len(classes) == 2 and scores and name in scores:
        return f"\n{name.upper()} {scores[name]}"
    return f"{name.upper()} {value:.3f}"


def _mean(name: str, scores: Mapping[str, Score] | None, classes: Sequence[str]) -> str:
    if len(classes) == 2 or not scores or name not in scores:
        return ""
    return f"\nmean {scores[name]}"


def _draw_confusion(axes: "Axes", counts: np.ndarray, classes: Sequence[str]) -> None:
    """Counts (C, C), rows the truth, shaded by the share of their row."""
    shade = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shade, cmap=SHADES, vmin=0, vmax=1)
    if len(classes) <= MOST_COUNTED:
        size = 7 if len(classes) <= 5 else 5
        for (i, j), count in np.ndenumerate(counts):
            text = f"{count:,}\n{shade[i, j]:.0%}" if len(classes) <= 5 else f"{count:,}"
            axes.text(
                j, i, text, ha="center", va="center", fontsize=size, color="k" if shade[i, j] < 0.6 else "w"
            )
    axes.set(xlabel="predicted", ylabel="true", xticks=range(len(classes)), yticks=range(len(classes)))
    longest = max(map(len, classes))
    turned: dict[str, Any] = (
        {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if longest * len(classes) > 16 else {}
    )
    small: dict[str, Any] = {"fontsize": 5} if len(classes) > MOST_COUNTED else {}
    axes.set_xticklabels(classes, **turned, **small)
    axes.set_yticklabels(classes, **small)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def plot_tags(
    path: str | Path,
    counts: np.ndarray,
    scores: Mapping[str, Score],
    tags: Sequence[str],
    *,
    beside: Sequence[str] = (),
) -> Path:
    """The confusion matrix of the tags, shaded by the share within each true tag, and all F1 scores with
    their intervals.

    counts  int (tags, tags), rows the truth
    """
    shown = {name: score for name, score in scores.items() if "f1" in name}
    height = max(2.6, 0.9 + 0.22 * max(len(shown), len(tags)))
    with new_figure(path, TWO_COLUMNS, height, beside=beside) as figure:
        confusion, dots = figure.subplots(1, 2)
        _draw_confusion(confusion, counts, tags)
        confusion.set_title(f"k-mers, n = {int(counts.sum()):,}")
        at = np.arange(len(shown))
        value, low, high = np.array([[s.value, s.low, s.high] for s in shown.values()]).T
        dots.hlines(at, low, high, color=BLUE, linewidth=2, alpha=0.5)
        dots.plot(value, at, "o", color=BLUE)
        for y, one in zip(at, value, strict=True):
            dots.annotate(f"{one:.3f}", (one, y), (0, 4), textcoords="offset points", ha="center", fontsize=6)
        dots.set(yticks=at, xlim=(-0.03, 1.03), ylim=(len(shown) - 0.4, -0.7), xlabel="F1")
        dots.set_yticklabels(
            [name.replace("span_f1_", "spans, ").replace("f1_", "k-mers, ") for name in shown]
        )
        dots.grid(axis="x")
        dots.set_title("F1, 95 % interval over windows")
    return Path(path)


def plot_regression(
    path: str | Path,
    truth: np.ndarray,
    predicted: np.ndarray,
    name: str = "label",
    scores: Mapping[str, Score] | None = None,
    *,
    beside: Sequence[str] = (),
) -> Path:
    """Predicted against true values, with the number of rows and the scores r2, Pearson's and Spearman's correlation.

    name  what the values are, with the unit
    """
    with new_figure(path, ONE_COLUMN, ONE_COLUMN, beside=beside) as figure:
        axes = figure.subplots()
        axes.scatter(truth, predicted, s=6, alpha=0.4, linewidth=0, color=BLUE, rasterized=len(truth) > MANY)
        low, high = min(truth.min(), predicted.min()), max(truth.max(), predicted.max())
        axes.plot([low, high], [low, high], **REFERENCE, label="equal")
        axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}", aspect="equal")
        lines = [f"n = {len(truth):,}"]
        for key, words in (("r2", "R²"), ("pearson", "Pearson r"), ("spearman", "Spearman ρ")):
            if scores and key in scores:
                lines.append(f"{words} = {scores[key]}")
        axes.set_title("\n".join(lines), loc="left", fontsize=7.5)
    return Path(path)


def plot_haplotypes(
    path: str | Path, reports: Mapping[str, HaplotypeReport], *, beside: Sequence[str] = ()
) -> Path:
    """Allele frequencies, LD decay, the first two principal components and nearest-neighbour distances: the
    haplotypes of each named method beside the real ones."""
    real = next(iter(reports.values()))
    count = len(real.real_components)
    with new_figure(path, TWO_COLUMNS, 5.9 + 0.15 * len(reports), beside=beside) as figure:
        panels = figure.subplots(2, 2)
        (frequency, decay), (pca, distance) = panels
        name_of_real = f"real, held out (n = {count:,})"
        middle = (real.ld_edges_bp[:-1] + real.ld_edges_bp[1:]) / 2000
        _draw_band(decay, middle, real.real_ld, real.real_ld_error, BLACK, name_of_real)
        pca.scatter(*real.real_components[:, :2].T, s=7, c=BLACK, alpha=0.4, linewidth=0, label=name_of_real)
        farthest = max(int(r.distance.max()) for r in reports.values())
        bins = np.linspace(0, max(farthest, int(real.real_distance.max())) + 1, 40)
        distance.hist(
            real.real_distance, bins, color=BLACK, alpha=0.3, weights=np.full(count, 1 / count),
            label=f"real, held out: median {np.median(real.real_distance):.0f}",
        )  # fmt: skip
        for (name, report), step in zip(reports.items(), _steps(), strict=False):
            colour, dashes = step["color"], step["linestyle"]
            made = len(report.components)
            r = report.scores["allele_frequency_correlation"]
            frequency.scatter(
                report.real_frequency, report.frequency, s=6, alpha=0.4, linewidth=0, color=colour,
                label=f"{name}: r = {r:.3f}",
            )  # fmt: skip
            _draw_band(decay, middle, report.ld, report.ld_error, colour, name, dashes)
            pca.scatter(*report.components[:, :2].T, s=7, alpha=0.35, linewidth=0, color=colour, label=name)
            distance.hist(
                report.distance, bins, histtype="step", color=colour, linestyle=dashes,
                weights=np.full(made, 1 / made), label=f"{name}: median {np.median(report.distance):.0f}",
            )  # fmt: skip
        frequency.plot([0, 1], [0, 1], **REFERENCE)
        frequency.set(xlabel="frequency, real", ylabel="frequency, generated", title="alternative alleles")
        decay.set(xlabel="distance (kbp)", ylabel="mean r²", title="linkage disequilibrium (95 % interval)")
        decay.set_ylim(bottom=0)
        first, second = np.append(real.explained, 0)[:2]
        pca.set(
            xlabel=f"component 1 ({first:.0%} of the real variance)", ylabel=f"component 2 ({second:.0%})"
        )
        pca.set_title("PCA of the real haplotypes")
        distance.set(xlabel="variants that differ from the nearest training haplotype")
        distance.set(ylabel="share of haplotypes", title="copying")
        for axes in panels.flat:
            legend_below(axes)
        letter_panels(list(panels.flat))
    return Path(path)


def _steps() -> list[dict[str, Any]]:
    import matplotlib

    return list(matplotlib.rcParams["axes.prop_cycle"])


def _draw_band(
    axes: "Axes",
    x: np.ndarray,
    value: np.ndarray,
    error: np.ndarray,
    colour: str,
    label: str,
    dashes: str = "-",
) -> None:
    """A line with 1.96 standard errors on both sides."""
    axes.plot(x, value, color=colour, linestyle=dashes, label=label)
    axes.fill_between(x, value - 1.96 * error, value + 1.96 * error, color=colour, alpha=0.15, linewidth=0)
