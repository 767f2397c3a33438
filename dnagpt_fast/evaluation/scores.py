"""Quality of classification and regression, by scikit-learn and scipy, with bootstrap intervals."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dnagpt_fast.extras import need

RESAMPLES = 300  # the ends of a 95 % interval lie at the 7th of 300 from either side


class Score(NamedTuple):
    """A measure with the 95 % interval of the bootstrap (percentiles)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def classification_scores(
    truth: np.ndarray,
    probabilities: np.ndarray,
    *,
    positive: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Score]:
    """accuracy, f1, mcc, auroc, auprc of n predictions over C classes.

    truth          int (n,), 0..C-1
    probabilities  float (n, C)
    positive       of two classes the one that f1 and auprc are about; None, or more classes: means over the classes
    The bootstrap draws within each class, so that every resample has both. Raises ValueError for NaN, or a class that
    does not occur.
    """
    classes = probabilities.shape[1]
    _check_finite(probabilities)
    counts = np.bincount(truth, minlength=classes)
    if (counts == 0).any():
        raise ValueError(f"class {int(np.argmin(counts))} does not occur among the {len(truth)} truths")
    metrics = need("sklearn.metrics")
    binary = classes == 2 and positive is not None

    def scores(rows: np.ndarray) -> dict[str, float]:
        t, p = truth[rows], probabilities[rows]
        guess = p.argmax(1)
        if binary:
            f1 = metrics.f1_score(t == positive, guess == positive)
            auroc = metrics.roc_auc_score(t == positive, p[:, positive])
            auprc = metrics.average_precision_score(t == positive, p[:, positive])
        else:
            f1 = metrics.f1_score(t, guess, average="macro")
            each = [(t == c, p[:, c]) for c in range(classes)]
            auroc = float(np.mean([metrics.roc_auc_score(*pair) for pair in each]))
            auprc = float(np.mean([metrics.average_precision_score(*pair) for pair in each]))
        return {
            "accuracy": metrics.accuracy_score(t, guess),
            "f1": f1,
            "mcc": metrics.matthews_corrcoef(t, guess),
            "auroc": auroc,
            "auprc": auprc,
        }

    members = [np.nonzero(truth == c)[0] for c in range(classes)]

    def draw(rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([rows[rng.integers(len(rows), size=len(rows))] for rows in members])

    return bootstrap(scores, draw, len(truth), resamples, seed)


def regression_scores(
    truth: np.ndarray, predicted: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Score]:
    """r2 (coefficient of determination), pearson, spearman, rmse of n predictions; float (n,) both.

    Raises ValueError for NaN, for fewer than 3 rows, and for truths that do not vary.
    """
    _check_finite(predicted)
    _check_finite(truth)
    if len(truth) < 3 or np.ptp(truth) == 0:
        raise ValueError(f"{len(truth)} truths from {truth.min(initial=0):g}: wanted 3 or more that vary")
    metrics, stats = need("sklearn.metrics"), need("scipy.stats")

    def scores(rows: np.ndarray) -> dict[str, float]:
        t, p = truth[rows], predicted[rows]
        varies = np.ptp(t) > 0 and np.ptp(p) > 0
        return {
            "r2": metrics.r2_score(t, p),
            "pearson": stats.pearsonr(t, p)[0] if varies else 0.0,
            "spearman": stats.spearmanr(t, p)[0] if varies else 0.0,
            "rmse": float(np.sqrt(np.mean((t - p) ** 2))),
        }

    def draw(rng: np.random.Generator) -> np.ndarray:
        return rng.integers(len(truth), size=len(truth))

    return bootstrap(scores, draw, len(truth), resamples, seed)


def bootstrap(
    scores: Callable[[np.ndarray], dict[str, float]],
    draw: Callable[[np.random.Generator], np.ndarray],
    rows: int,
    resamples: int,
    seed: int,
) -> dict[str, Score]:
    """Each score of all rows, and its 2.5 and 97.5 percentiles over resamples drawn by `draw`; NaN without any."""
    values = scores(np.arange(rows))
    rng = np.random.Generator(np.random.Philox(seed))
    samples = [scores(draw(rng)) for _ in range(resamples)]
    found = {}
    for name, value in values.items():
        low, high = (
            np.percentile([s[name] for s in samples], [2.5, 97.5])
            if samples
            else (float("nan"), float("nan"))
        )
        found[name] = Score(float(value), float(low), float(high))
    return found


def _check_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {values.size} values are NaN or infinite")
