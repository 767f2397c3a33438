"""The baselines find simple signals in the features that they use."""

import numpy as np
import pytest

from dnagpt_fast.evaluation.baselines import (
    WeightMatrix,
    gradient_boosting,
    kmer_counts,
    kmer_names,
    logistic_regression,
    position_features,
    ridge,
)
from tests.finetune.data.genomes import put, random_bases


def test_kmers_are_counted_where_they_overlap_and_not_over_n():
    counts = kmer_counts(["AAAA", "ACNAC", "G"], 2)
    names = kmer_names(2)
    assert dict(zip(names, counts[0].tolist(), strict=True))["AA"] == 1
    assert {n: c for n, c in zip(names, counts[1].tolist(), strict=True) if c} == {"AC": 1.0}
    assert counts[2].sum() == 0


def test_positions():
    rows = position_features(["ACGT", "NNNA"])
    assert rows[0].reshape(4, 4).tolist() == np.eye(4).tolist()
    assert rows[1].sum() == 1
    with pytest.raises(ValueError, match="3 to 4 bases"):
        position_features(["ACGT", "ACG"])


def split(texts, values):
    return texts[:120], values[:120], texts[120:160], values[120:160], texts[160:], values[160:]


def test_logistic_regression_finds_a_motif_by_its_place():
    classes = np.arange(240) % 2
    texts = [random_bases(24, seed=i) for i in range(240)]
    texts = [put(t, 10, "GTAAG") if c else t for t, c in zip(texts, classes, strict=True)]
    train, y, validation, vy, test, ty = split(texts, classes)
    p = logistic_regression(
        position_features(train), y, position_features(test),
        validation=position_features(validation), validation_classes=vy,
    )  # fmt: skip
    assert p.shape == (80, 2)
    assert (p.argmax(1) == ty).mean() > 0.9


def test_ridge_finds_gc():
    texts = ["".join(np.random.default_rng(i).choice(list("ACGT"), 200, p=[0.5 - g, g, g, 0.5 - g]))
             for i, g in enumerate(np.linspace(0.1, 0.4, 240))]  # fmt: skip
    order = np.random.default_rng(0).permutation(240)
    texts = [texts[i] for i in order]
    gc = np.array([(t.count("G") + t.count("C")) / 200 for t in texts])
    train, y, validation, vy, test, ty = split(texts, gc)
    guess = ridge(
        kmer_counts(train, 2),
        y,
        kmer_counts(test, 2),
        validation=kmer_counts(validation, 2),
        validation_values=vy,
    )
    assert np.corrcoef(guess, ty)[0, 1] > 0.99


def test_trees_find_what_is_not_linear_and_stop_before_they_learn_noise():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 4))
    y = np.abs(x[:, 0])  # no linear correlation
    train, validation, test = np.split(np.arange(900), [500, 700])
    given = {"validation": x[validation], "validation_values": y[validation]}
    assert abs(np.corrcoef(ridge(x[train], y[train], x[test], **given), y[test])[0, 1]) < 0.3
    assert np.corrcoef(gradient_boosting(x[train], y[train], x[test], **given), y[test])[0, 1] > 0.95
    noise = rng.normal(size=900)
    given["validation_values"] = noise[validation]
    # 400 trees would fit the noise of the training rows; the validation rows like almost none
    assert gradient_boosting(x[train], noise[train], x[test], **given).std() < 0.2


def test_a_weight_matrix_is_the_log_ratio_of_counted_bases():
    texts, positive = ["AACC", "AATT", "CCGN", "AGGA"], np.array([True, True, False, False])
    found = WeightMatrix(texts, positive, order=0, before=1, after=1).score(["TACT", "TGGT", "TNCT"])
    # of the middle two bases, with 1 added to each count: A 3/6 against 1/6 (G 1/6 against 2/6), C 2/6 against 1/6
    first = {"A": np.log(3), "G": np.log(1 / 2), "N": 0.0}
    second = {"C": np.log(2), "G": np.log(1 / 3)}
    assert np.allclose(found, [first["A"] + second["C"], first["G"] + second["G"], first["N"] + second["C"]])


def test_a_weight_array_sees_pairs_that_a_matrix_does_not():
    # both classes have the same bases at each place, and differ in which pairs occur
    texts = ["AC", "CA"] * 100 + ["AA", "CC"] * 100
    positive = np.arange(400) < 200
    matrix, pairs = (WeightMatrix(texts, positive, order, 1, 1).score(["AC", "AA"]) for order in (0, 1))
    assert np.allclose(matrix, 0)
    assert pairs[0] > 3
    assert pairs[1] < -3
    assert np.allclose(WeightMatrix(texts, positive, 1, 1, 1).score(["NA"]), 0)
