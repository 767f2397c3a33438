"""Scores against cases computed by hand, and the coverage of the intervals."""

import numpy as np
import pytest

from dnagpt_fast.evaluation.scores import (
    bootstrap,
    classification_scores,
    paired_difference,
    regression_scores,
    resampled,
)


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
    assert scores["squared_pearson"].value == pytest.approx(0.64)
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
            lambda rows, right=right: {"accuracy": right[rows].mean()}, 200, resampled(200, 200, i)
        )["accuracy"]
        assert score.low <= score.value <= score.high
        missed += not score.low <= 0.8 <= score.high
    assert missed <= 14


def test_copies_of_a_row_are_one_piece_of_evidence():
    """20 rows, each 25 times: the cluster bootstrap counts 20 independent rows, the bootstrap of rows counts
    500."""
    right = np.repeat(np.random.default_rng(1).random(20) < 0.8, 25)
    width = []
    for clusters in (None, np.repeat(np.arange(20), 25)):
        draws = resampled(500, 300, 0, clusters)
        score = bootstrap(lambda rows: {"accuracy": right[rows].mean()}, 500, draws)["accuracy"]
        assert score.value == right.mean()
        width.append(score.high - score.low)
    # 25 copies: a standard deviation 5 times as large
    assert 3 < width[1] / width[0] < 7


def test_resamples_draw_whole_clusters_and_every_class():
    clusters, truth = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    for drawn in resampled(6, 50, 0, clusters, strata=truth):
        counts = np.bincount(drawn, minlength=6)
        assert counts[0] == counts[1]
        assert counts[2] == counts[3] == counts[4]
        assert set(truth[drawn]) == {0, 1}
    with pytest.raises(ValueError, match="1 clusters: none of 100 resamples has all 2 classes"):
        list(resampled(2, 1, 0, np.array([0, 0])[:1], strata=np.array([0, 1])))


def test_a_paired_difference_is_sharper_than_two_intervals():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=300)
    noise = rng.normal(size=300)
    better, worse = truth + noise, truth + 1.2 * noise

    def r(t, p):
        return float(np.corrcoef(t, p)[0, 1])

    found = paired_difference(r, truth, better, worse, resamples=300)
    assert found.value == pytest.approx(r(truth, better) - r(truth, worse))
    assert found.low > 0
    assert paired_difference(r, truth, better, better, resamples=20) == (0, 0, 0)
