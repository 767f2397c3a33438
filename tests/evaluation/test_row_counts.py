"""Scores of counted rows against scikit-learn and scipy on the rows themselves."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from dnagpt_fast.evaluation.row_counts import (
    ClassificationRows,
    DetectionRows,
    RegressionRows,
    best_threshold,
)
from dnagpt_fast.evaluation.scores import resampled


def classification_by_sklearn(truth, probabilities, positive):
    guess, classes = probabilities.argmax(1), probabilities.shape[1]
    if classes == 2 and positive is not None:
        f1 = metrics.f1_score(truth == positive, guess == positive)
        pairs = [(truth == positive, probabilities[:, positive])]
    else:
        f1 = metrics.f1_score(truth, guess, average="macro")
        pairs = [(truth == c, probabilities[:, c]) for c in range(classes)]
    return {
        "accuracy": metrics.accuracy_score(truth, guess),
        "f1": f1,
        "mcc": metrics.matthews_corrcoef(truth, guess),
        "auroc": np.mean([metrics.roc_auc_score(*pair) for pair in pairs]),
        "auprc": np.mean([metrics.average_precision_score(*pair) for pair in pairs]),
    }


@pytest.mark.parametrize(("classes", "positive"), [(2, 1), (2, 0), (2, None), (4, None)])
@pytest.mark.parametrize("digits", [1, 8])  # one digit: many equal probabilities
def test_classification_is_that_of_scikit_learn(classes, positive, digits):
    rng = np.random.default_rng(classes + digits)
    truth = rng.integers(0, classes, 60)
    probabilities = rng.dirichlet(np.ones(classes), 60)
    probabilities[np.arange(60), truth] += 0.3
    probabilities = (probabilities / probabilities.sum(1, keepdims=True)).round(digits)
    scores = ClassificationRows(truth, probabilities, positive)
    for rows in [np.arange(60), *resampled(60, 8, 1, strata=truth)]:
        assert scores(rows) == pytest.approx(
            classification_by_sklearn(truth[rows], probabilities[rows], positive)
        )


def test_one_guessed_class_has_no_correlation():
    truth, probabilities = np.array([0, 1, 1, 0]), np.array([[0.1, 0.9]] * 4)
    found = ClassificationRows(truth, probabilities, 0)(np.arange(4))
    assert found == {"accuracy": 0.5, "f1": 0.0, "mcc": 0.0, "auroc": 0.5, "auprc": 0.5}


@pytest.mark.parametrize("digits", [0, 8])
def test_regression_is_that_of_scipy_and_scikit_learn(digits):
    rng = np.random.default_rng(digits)
    truth = rng.normal(5, 3, 50).round(digits)
    predicted = (truth + rng.normal(0, 2, 50)).round(digits)
    scores = RegressionRows(truth, predicted)
    for rows in [np.arange(50), *resampled(50, 8, 2)]:
        t, p = truth[rows], predicted[rows]
        assert scores(rows) == pytest.approx(
            {
                "r2": metrics.r2_score(t, p),
                "pearson": stats.pearsonr(t, p)[0],
                "squared_pearson": stats.pearsonr(t, p)[0] ** 2,
                "spearman": stats.spearmanr(t, p)[0],
                "rmse": metrics.root_mean_squared_error(t, p),
            }
        )


def test_a_resample_of_one_value_correlates_with_nothing():
    found = RegressionRows(np.array([1.0, 1.0, 2.0]), np.array([3.0, 4.0, 5.0]))(np.array([0, 0, 1]))
    assert found["pearson"] == found["spearman"] == found["r2"] == 0


def detected(seed=3, negatives=60):
    rng = np.random.default_rng(seed)
    truth = np.arange(40 + negatives) < 40
    return truth, np.round(rng.normal(size=len(truth)) + truth, 1)  # rounded, so that scores are tied


def test_detection_at_another_ratio_is_that_of_repeated_negatives():
    truth, values = detected()
    drawn = np.random.default_rng(1).integers(len(truth), size=len(truth))
    found = DetectionRows(truth, values, 0.5, places_per_negative=7.0)(drawn)
    places = np.concatenate([drawn[truth[drawn]], np.repeat(drawn[~truth[drawn]], 7)])
    assert found["auprc_natural"] == pytest.approx(
        metrics.average_precision_score(truth[places], values[places])
    )
    assert found["base_rate"] == pytest.approx(truth[places].mean())
    positive, negative = truth[drawn].sum(), (~truth[drawn]).sum()
    equal = np.where(truth[drawn], 1 / positive, 1 / negative)
    called = values[drawn] >= 0.5
    for name, wanted in (
        ("auroc", metrics.roc_auc_score(truth[drawn], values[drawn])),
        ("auprc", metrics.average_precision_score(truth[drawn], values[drawn], sample_weight=equal)),
        ("balanced_accuracy", metrics.balanced_accuracy_score(truth[drawn], called)),
        ("mcc", metrics.matthews_corrcoef(truth[drawn], called, sample_weight=equal)),
        ("sensitivity", metrics.recall_score(truth[drawn], called)),
    ):
        assert found[name] == pytest.approx(wanted), name


def test_a_score_without_information_has_the_base_rate():
    truth = np.arange(50) < 10
    found = DetectionRows(truth, np.zeros(50), 1.0, places_per_negative=100)(np.arange(50))
    assert found["auprc_natural"] == pytest.approx(found["base_rate"]) == pytest.approx(10 / 4010)
    assert (found["mcc"], found["auroc"], found["auprc"]) == (0.0, 0.5, pytest.approx(0.5))


def test_the_best_threshold_is_that_of_all():
    truth, values = detected()
    every = np.arange(len(truth))
    of = {cut: DetectionRows(truth, values, cut, 1.0)(every)["mcc"] for cut in np.unique(values).tolist()}
    assert of[best_threshold(truth, values)] == pytest.approx(max(of.values()))
