"""Metrics against cases that can be worked out by hand, and the intervals' coverage."""

import numpy as np
import pytest

from dnagpt_fast.evaluation.scores import bootstrap, classification_scores, regression_scores


def probabilities(positive):
    return np.stack([1 - np.array(positive), np.array(positive)], axis=1)


def test_a_case_by_hand():
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    scores = classification_scores(
        truth, probabilities([0.9, 0.8, 0.2, 0.7, 0.1, 0.1, 0.3, 0.4]), positive=1, resamples=0
    )
    # tp 2 fn 1 fp 1 tn 4
    assert scores["accuracy"].value == 6 / 8
    assert scores["f1"].value == pytest.approx(2 / 3)
    assert scores["mcc"].value == pytest.approx((2 * 4 - 1 * 1) / (3 * 3 * 5 * 5) ** 0.5)
    # 15 pairs: 0.9 and 0.8 beat all five, 0.2 beats two
    assert scores["auroc"].value == pytest.approx(12 / 15)
    assert scores["auprc"].value == pytest.approx(1 / 3 * 1 + 1 / 3 * 1 + 1 / 3 * 3 / 6)


def test_three_classes_are_averaged():
    truth = np.array([0, 1, 2, 0, 1, 2])
    p = np.eye(3)[truth] * 0.8 + 0.2 / 3
    scores = classification_scores(truth, p, resamples=10)
    assert {name: score.value for name, score in scores.items()} == dict.fromkeys(
        ("accuracy", "f1", "mcc", "auroc", "auprc"), 1.0
    )


def test_a_class_that_does_not_occur_and_nan():
    with pytest.raises(ValueError, match="class 1 does not occur among the 2 truths"):
        classification_scores(np.array([0, 0]), probabilities([0.1, 0.2]))
    with pytest.raises(ValueError, match="2 of 4 values are NaN"):
        classification_scores(np.array([0, 1]), probabilities([0.1, np.nan]))


def test_regression_by_hand():
    truth, guess = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 4.0, 3.0])
    scores = regression_scores(truth, guess, resamples=0)
    assert scores["r2"].value == pytest.approx(1 - 2 / 5)
    assert scores["pearson"].value == pytest.approx(0.8)
    assert scores["spearman"].value == pytest.approx(0.8)
    assert scores["rmse"].value == pytest.approx(0.5**0.5)


def test_a_constant_guess_correlates_with_nothing():
    scores = regression_scores(np.array([1.0, 2.0, 3.0]), np.full(3, 2.0), resamples=5)
    assert scores["pearson"].value == scores["spearman"].value == 0
    assert scores["r2"].value == 0


def test_a_constant_truth_is_an_error():
    with pytest.raises(ValueError, match="3 or more that vary"):
        regression_scores(np.ones(5), np.arange(5.0))


def test_the_interval_holds_the_truth_most_of_the_time():
    # accuracy 0.8 by construction: of 100 data sets of 200 rows, the 95 % interval misses in 5 on average, and in more
    # than 14 with a probability below 1 in 1,000
    rng = np.random.default_rng(0)
    missed = 0
    for i in range(100):
        right = rng.random(200) < 0.8
        score = bootstrap(
            lambda rows, right=right: {"accuracy": right[rows].mean()},
            lambda r: r.integers(200, size=200),
            200,
            200,
            i,
        )["accuracy"]
        assert score.low <= score.value <= score.high
        missed += not score.low <= 0.8 <= score.high
    assert missed <= 14
