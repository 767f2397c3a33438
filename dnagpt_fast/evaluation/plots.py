"""Figures of a fine-tuning report; each file is written completely or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dnagpt_fast.evaluation.haplotype_statistics import HaplotypeReport
from dnagpt_fast.evaluation.scores import Score
from dnagpt_fast.extras import need
from dnagpt_fast.output_files import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # imported late: its import would delay the first step of a run

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> Path:
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path


def plot_classification(
    path: str | Path, truth: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Path:
    """ROC and precision-recall curves of each class (of two classes: of the second), and the confusion
    matrix."""
    metrics = need("sklearn.metrics")
    figure = _figure(13, 4)
    roc, pr, confusion = figure.subplots(1, 3)
    shown = [1] if len(classes) == 2 else range(len(classes))
    for c in shown:
        false, true, _ = metrics.roc_curve(truth == c, probabilities[:, c])
        roc.plot(false, true, label=classes[c])
        precision, recall, _ = metrics.precision_recall_curve(truth == c, probabilities[:, c])
        pr.plot(recall, precision, label=classes[c])
    roc.plot([0, 1], [0, 1], "k:", linewidth=0.8)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    pr.set(xlabel="recall", ylabel="precision", title="precision and recall", ylim=(0, 1.02))
    for axes in (roc, pr):
        axes.legend()
    matrix = metrics.confusion_matrix(truth, probabilities.argmax(1), labels=range(len(classes)))
    _draw_confusion(confusion, matrix, matrix / max(matrix.max(), 1), classes)
    return _save(figure, Path(path))


def _draw_confusion(axes: "Axes", counts: np.ndarray, shade: np.ndarray, classes: Sequence[str]) -> None:
    """Counts (C, C), rows the truth; shade (C, C), 0 to 1."""
    axes.imshow(shade, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        axes.text(j, i, str(count), ha="center", va="center", color="k" if shade[i, j] < 0.5 else "w")
    axes.set(xlabel="predicted", ylabel="true", xticks=range(len(classes)), yticks=range(len(classes)))
    axes.set_xticklabels(classes, rotation=20)
    axes.set_yticklabels(classes)


def plot_tags(path: str | Path, counts: np.ndarray, scores: Mapping[str, Score], tags: Sequence[str]) -> Path:
    """The confusion matrix of the tags, shaded by the share within each true tag, and all F1 scores with
    their intervals.

    counts  int (tags, tags), rows the truth
    """
    figure = _figure(11, 5)
    confusion, bars = figure.subplots(1, 2)
    _draw_confusion(confusion, counts, counts / np.maximum(counts.sum(1, keepdims=True), 1), tags)
    shown = {name: score for name, score in scores.items() if "f1" in name}
    at = np.arange(len(shown))
    value, low, high = np.array([[s.value, s.low, s.high] for s in shown.values()]).T
    bars.barh(at, value, color="tab:blue", alpha=0.5)
    bars.hlines(at, low, high, color="k", linewidth=1)
    bars.set(yticks=at, xlim=(0, 1), xlabel="F1")
    bars.set_yticklabels(list(shown))
    bars.invert_yaxis()
    return _save(figure, Path(path))


def plot_regression(path: str | Path, truth: np.ndarray, predicted: np.ndarray, name: str = "label") -> Path:
    """Predicted against true values."""
    figure = _figure(5, 5)
    axes = figure.subplots()
    axes.scatter(truth, predicted, s=6, alpha=0.4)
    low, high = min(truth.min(), predicted.min()), max(truth.max(), predicted.max())
    axes.plot([low, high], [low, high], "k:", linewidth=0.8)
    axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
    return _save(figure, Path(path))


def plot_haplotypes(path: str | Path, reports: dict[str, HaplotypeReport]) -> Path:
    """Allele frequencies, LD decay, the first two principal components and nearest-neighbour distances: the
    haplotypes of each named method beside the real ones."""
    figure = _figure(13, 10)
    (frequency, decay), (pca, distance) = figure.subplots(2, 2)
    real = next(iter(reports.values()))
    middle = (real.ld_edges_bp[:-1] + real.ld_edges_bp[1:]) / 2000
    decay.plot(middle, real.real_ld, "k", label="real, held out")
    pca.scatter(*real.real_components[:, :2].T, s=8, c="k", alpha=0.4, label="real, held out")
    farthest = max(int(r.distance.max()) for r in reports.values())
    bins = np.linspace(0, max(farthest, int(real.real_distance.max())) + 1, 40)
    distance.hist(real.real_distance, bins, color="k", alpha=0.4, density=True, label="real, held out")
    for name, report in reports.items():
        frequency.scatter(report.real_frequency, report.frequency, s=6, alpha=0.4, label=name)
        decay.plot(middle, report.ld, label=name)
        pca.scatter(*report.components[:, :2].T, s=8, alpha=0.3, label=name)
        distance.hist(report.distance, bins, histtype="step", density=True, label=name)
    frequency.plot([0, 1], [0, 1], "k:", linewidth=0.8)
    frequency.set(xlabel="frequency, real", ylabel="frequency, generated", title="alternative alleles")
    decay.set(xlabel="distance (kbp)", ylabel="mean r2", title="linkage disequilibrium")
    pca.set(xlabel="component 1", ylabel="component 2", title="PCA of the real haplotypes")
    distance.set(xlabel="variants differing from the nearest training haplotype", title="copying")
    for axes in (frequency, decay, pca, distance):
        axes.legend()
    return _save(figure, Path(path))
