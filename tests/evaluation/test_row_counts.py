"""Scores of counted rows against scikit-learn and scipy on the rows themselves."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from dnagpt_fast.evaluation.row_counts import ClassificationRows, RegressionRows
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
