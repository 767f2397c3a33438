"""Scores of classification and regression, with bootstrap intervals."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dnagpt_fast.evaluation.row_counts import ClassificationRows, RegressionRows

RESAMPLES = 1000
# A resample of few clusters may miss a class. Most scores are undefined then, so it is drawn again, at most
# this often.
MOST_DRAWS = 100


class Score(NamedTuple):
    """A score with its 95 % bootstrap interval (percentiles)."""

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
    clusters: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Score]:
    """accuracy, f1, mcc, auroc, auprc of n predictions over C classes.

    truth          int (n,), 0..C-1
    probabilities  float (n, C)
    positive       with two classes: the class of f1, auroc and auprc. None, or more than two classes: means
                   over the classes
    clusters       int (n,): the block, gene or person of each row; rows of one cluster are not independent.
                   The bootstrap then draws whole clusters (Field and Welsh 2007). Without clusters it draws
                   rows within each class, so that every resample has all classes

    Raises ValueError for NaN, for a class that does not occur, and where no resample of the clusters has all
    classes.
    """
    _check_finite(probabilities)
    classes = probabilities.shape[1]
    counts = np.bincount(truth, minlength=classes)
    if (counts == 0).any():
        raise ValueError(f"class {int(np.argmin(counts))} does not occur among the {len(truth)} truths")
    draws = resampled(len(truth), resamples, seed, clusters, strata=truth)
    return bootstrap(ClassificationRows(truth, probabilities, positive), len(truth), draws)


def regression_scores(
    truth: np.ndarray,
    predicted: np.ndarray,
    *,
    clusters: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Score]:
    """r2 (coefficient of determination), pearson, squared_pearson, spearman, rmse of n predictions.

    truth, predicted: float (n,). squared_pearson is called r2 by Xpresso and the DNAGPT paper; it ignores the
    scale and the offset of the predictions. clusters: as in `classification_scores`. Raises ValueError for
    NaN, for fewer than 3 rows, and where all truths are equal.
    """
    _check_finite(predicted)
    _check_finite(truth)
    if len(truth) < 3 or np.ptp(truth) == 0:
        raise ValueError(f"{len(truth)} truths from {truth.min(initial=0):g}: wanted 3 or more that vary")
    scores = RegressionRows(truth, predicted)
    return bootstrap(scores, len(truth), resampled(len(truth), resamples, seed, clusters))


def paired_difference(
    measure: Callable[[np.ndarray, np.ndarray], float],
    truth: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    clusters: np.ndarray | None = None,
    strata: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Score:
    """measure(truth, first) - measure(truth, second) with the interval of the paired bootstrap.

    Both methods are scored on the same rows of each resample, so that rows that are hard or easy for both
    cancel out. The methods differ where the interval excludes 0. measure: (truth, predictions) of the drawn
    rows -> a number. clusters, strata: as in `resampled`.
    """

    draws = resampled(len(truth), resamples, seed, clusters, strata)
    return difference_of(
        lambda rows: measure(truth[rows], first[rows]),
        lambda rows: measure(truth[rows], second[rows]),
        len(truth),
        draws,
    )


def difference_of(
    first: Callable[[np.ndarray], float],
    second: Callable[[np.ndarray], float],
    rows: int,
    draws: Iterator[np.ndarray],
) -> Score:
    """first - second of all rows, with the interval over the resamples `draws`, in each of which both have the same
    rows. first, second: row numbers -> a number."""
    return bootstrap(lambda drawn: {"": first(drawn) - second(drawn)}, rows, draws)[""]


def mean_of(
    scorers: Sequence[Callable[[np.ndarray], dict[str, float]]],
) -> Callable[[np.ndarray], dict[str, float]]:
    """Row numbers -> the mean of each score over several scorers, such as those of the seeds of one method."""

    def mean(rows: np.ndarray) -> dict[str, float]:
        each = [scorer(rows) for scorer in scorers]
        return {name: float(np.mean([one[name] for one in each])) for name in each[0]}

    return scorers[0] if len(scorers) == 1 else mean


def resampled(
    rows: int,
    resamples: int,
    seed: int,
    clusters: np.ndarray | None = None,
    strata: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Row numbers of each resample.

    clusters  whole clusters are drawn, as many as there are; a resample without every value of `strata` is
              drawn again
    strata    without clusters: rows are drawn within each value, so that each value keeps its number of rows

    Raises ValueError where none of MOST_DRAWS resamples of clusters has every value of `strata`.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    if clusters is None:
        groups = [np.arange(rows)] if strata is None else _groups(strata)
        for _ in range(resamples):
            yield np.concatenate([group[rng.integers(len(group), size=len(group))] for group in groups])
        return
    members = _groups(clusters)
    wanted = 0 if strata is None else len(np.unique(strata))
    for _ in range(resamples):
        for _ in range(MOST_DRAWS):
            drawn = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
            if strata is None or len(np.unique(strata[drawn])) == wanted:
                break
        else:
            raise ValueError(
                f"{len(members)} clusters: none of {MOST_DRAWS} resamples has all {wanted} classes; wanted more "
                "clusters, or classes that occur in more than one cluster"
            )
        yield drawn


def _groups(labels: np.ndarray) -> list[np.ndarray]:
    """The rows of each label."""
    _, inverse = np.unique(labels, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    return np.split(order, np.cumsum(np.bincount(inverse))[:-1])


def bootstrap(
    scores: Callable[[np.ndarray], dict[str, float]], rows: int, draws: Iterator[np.ndarray]
) -> dict[str, Score]:
    """Each score of all rows, and its 2.5 and 97.5 percentiles over the resamples (NaN without resamples)."""
    values = scores(np.arange(rows))
    samples = [scores(drawn) for drawn in draws]
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
