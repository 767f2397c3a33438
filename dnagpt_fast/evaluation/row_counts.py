"""Scores of classification and regression in which each row counts a number of times: a resample of the bootstrap.

Everything that does not depend on the counts, above all sorting, is done once for all resamples. scikit-learn and scipy
have the same scores, and the tests compare with them; they take 12 ms a resample, where this takes less than 0.5.
"""

import numpy as np


class RankedScores:
    """Rows in order of falling score, those of equal score together.

    scores    float (n,)
    positive  bool (n,)
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        self._order = np.argsort(-scores, kind="stable")
        falling = scores[self._order]
        self._starts = np.concatenate(([0], np.flatnonzero(np.diff(falling)) + 1))
        self._positive = positive[self._order].astype(np.float64)

    def areas(self, count: np.ndarray) -> tuple[float, float]:
        """(AUROC, average precision) of rows with these counts, float (n,)."""
        count = count[self._order]
        positive = np.add.reduceat(count * self._positive, self._starts)
        rows = np.add.reduceat(count, self._starts)
        above, all_above = positive.cumsum(), rows.cumsum()
        negative = rows - positive
        pairs = float(positive.sum() * negative.sum())
        # a negative loses to each positive above it, and half of the time to one of the same score
        auroc = float((negative * (above - positive / 2)).sum()) / pairs
        precision = above / np.maximum(all_above, 1)
        return auroc, float((positive * precision).sum() / positive.sum())


class ClassificationRows:
    """accuracy, f1, mcc, auroc, auprc of rows as in evaluation.scores.classification_scores."""

    def __init__(self, truth: np.ndarray, probabilities: np.ndarray, positive: int | None) -> None:
        self._classes = probabilities.shape[1]
        self._cell = truth * self._classes + probabilities.argmax(1)
        self._wanted = (
            [positive] if self._classes == 2 and positive is not None else list(range(self._classes))
        )
        self._ranked = [RankedScores(probabilities[:, c], truth == c) for c in self._wanted]

    def __call__(self, rows: np.ndarray) -> dict[str, float]:
        """The scores of these rows, int (m,), with repeats; every class must be among them."""
        count = np.bincount(rows, minlength=len(self._cell)).astype(np.float64)
        cells = self._classes**2
        confusion = np.bincount(self._cell, count, cells).reshape(self._classes, self._classes)
        total, hits = confusion.sum(), np.diagonal(confusion)
        true, guessed = confusion.sum(1), confusion.sum(0)
        f1 = 2 * hits / np.maximum(true + guessed, 1)
        # Gorodkin 2004, the multiclass coefficient of Matthews
        spread = (total**2 - true @ true) * (total**2 - guessed @ guessed)
        mcc = (hits.sum() * total - true @ guessed) / np.sqrt(spread) if spread else 0.0
        areas = [ranked.areas(count) for ranked in self._ranked]
        return {
            "accuracy": float(hits.sum() / total),
            "f1": float(f1[self._wanted].mean()),
            "mcc": float(mcc),
            "auroc": float(np.mean([auroc for auroc, _ in areas])),
            "auprc": float(np.mean([auprc for _, auprc in areas])),
        }


class DetectionRows:
    """Scores of a detector of rare places, of which all positives and a uniform sample of the negatives are rows.

    truth               bool (n,)
    scores              float (n,), higher for positives
    threshold           a row is called positive from this score on; chosen on other rows
    places_per_negative number of places for which each negative stands: the natural ratio

    sensitivity; balanced_accuracy, mcc and auprc as if both classes had equally many rows, so that their ratio in the
    sample does not matter; auroc; auprc_natural, at the natural ratio, whose value by chance is base_rate.
    """

    def __init__(
        self, truth: np.ndarray, scores: np.ndarray, threshold: float, places_per_negative: float
    ) -> None:
        self._truth, self._called, self._places = truth, scores >= threshold, places_per_negative
        self._ranked = RankedScores(scores, truth)

    def __call__(self, rows: np.ndarray) -> dict[str, float]:
        """The scores of these rows, int (m,), with repeats; both classes must be among them."""
        count = np.bincount(rows, minlength=len(self._truth)).astype(np.float64)
        positive, negative = count[self._truth].sum(), count[~self._truth].sum()
        hits = count[self._truth & self._called].sum() / positive
        false = count[~self._truth & self._called].sum() / negative
        spread = (hits + false) * (2 - hits - false)
        auroc, equal = self._ranked.areas(np.where(self._truth, count, count * positive / negative))
        natural = np.where(self._truth, count, count * self._places)
        return {
            "sensitivity": float(hits),
            "balanced_accuracy": float((hits + 1 - false) / 2),
            "mcc": float((hits - false) / np.sqrt(spread)) if spread else 0.0,
            "auroc": auroc,
            "auprc": equal,
            "auprc_natural": self._ranked.areas(natural)[1],
            "base_rate": float(positive / natural.sum()),
        }


def best_threshold(truth: np.ndarray, scores: np.ndarray) -> float:
    """The score from which on rows are called positive with the highest `mcc` of DetectionRows. truth: bool (n,)"""
    order = np.argsort(-scores, kind="stable")
    hits = truth[order].cumsum() / truth.sum()
    false = (~truth[order]).cumsum() / (~truth).sum()
    spread = (hits + false) * (2 - hits - false)
    last = np.append(np.diff(scores[order]) != 0, True)  # rows of one score are called together
    mcc = np.where(last, (hits - false) / np.sqrt(np.maximum(spread, 1e-12)), -1)
    return float(scores[order][np.argmax(mcc)])


class _Ranks:
    """Mean ranks of values in which each row counts a number of times."""

    def __init__(self, values: np.ndarray) -> None:
        self._order = np.argsort(values, kind="stable")
        changes = np.diff(values[self._order]) != 0
        self._starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
        self._group = np.concatenate(([0], changes.cumsum()))

    def __call__(self, count: np.ndarray) -> np.ndarray:
        """float (n,), in the order of the values"""
        rows = np.add.reduceat(count[self._order], self._starts)
        ranks = np.empty(len(count))
        ranks[self._order] = (rows.cumsum() - (rows - 1) / 2)[self._group]
        return ranks


class RegressionRows:
    """r2, pearson, squared_pearson, spearman, rmse of rows as in evaluation.scores.regression_scores."""

    def __init__(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        self._truth, self._predicted = truth.astype(np.float64), predicted.astype(np.float64)
        self._ranks = _Ranks(self._truth), _Ranks(self._predicted)

    def __call__(self, rows: np.ndarray) -> dict[str, float]:
        """The scores of these rows, int (m,), with repeats. Correlations with a constant are 0."""
        count = np.bincount(rows, minlength=len(self._truth)).astype(np.float64)
        drawn_truth, drawn = self._truth[rows], self._predicted[rows]
        varies = np.ptp(drawn_truth) > 0 and np.ptp(drawn) > 0
        off = float(((drawn_truth - drawn) ** 2).sum())
        around_mean = float(((drawn_truth - drawn_truth.mean()) ** 2).sum())
        pearson = _correlation(self._truth, self._predicted, count) if varies else 0.0
        of_truth, of_predicted = (ranks(count) for ranks in self._ranks)
        return {
            "r2": 1 - off / around_mean if around_mean else float(off == 0),
            "pearson": pearson,
            "squared_pearson": pearson**2,
            "spearman": _correlation(of_truth, of_predicted, count) if varies else 0.0,
            "rmse": float(np.sqrt(off / len(rows))),
        }


def _correlation(first: np.ndarray, second: np.ndarray, count: np.ndarray) -> float:
    total = count.sum()
    a, b = first - count @ first / total, second - count @ second / total
    return float((count * a) @ b / np.sqrt(((count * a) @ a) * ((count * b) @ b)))
