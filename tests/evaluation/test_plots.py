"""Figures are complete files under their names; scores, intervals, numbers of rows and chance are in them."""

import re

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from dnagpt_fast.evaluation import plots
from dnagpt_fast.evaluation.haplotype_statistics import compare_haplotypes
from dnagpt_fast.evaluation.scores import Score, classification_scores, regression_scores

RNG = np.random.default_rng(0)
TRUTH = np.arange(30) % 3
P = RNG.dirichlet(np.ones(3), 30)


def texts(path):
    """Matplotlib writes each line of a text as a comment beside its outlines."""
    return "\n".join(one.strip() for one in re.findall("<!--(.*?)-->", path.read_text(), re.DOTALL))


def test_two_classes(tmp_path):
    truth, p = TRUTH % 2, np.c_[1 - P[:, 0], P[:, 0]]
    scores = classification_scores(truth, p, positive=1, resamples=20)
    path = plots.plot_classification(tmp_path / "x.png", truth, p, ["no", "yes"], scores, beside=(".svg",))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.png", "x.svg"]
    said = texts(tmp_path / "x.svg")
    for text in (
        "yes",
        f"AUROC {scores['auroc']}",
        f"AUPRC {scores['auprc']}",
        "chance 0.500",
        "chance 0.333",
        "ROC, 10 of 30 positive",
        "confusion, n = 30",
    ):
        assert text in said.splitlines(), said
    assert scores["auroc"].value == pytest.approx(roc_auc_score(truth, p[:, 1]))


def test_several_classes(tmp_path):
    scores = classification_scores(TRUTH, P, resamples=20)
    path = plots.plot_classification(tmp_path / "x.svg", TRUTH, P, ["a", "b", "c"], scores)
    said = texts(path).splitlines()
    for c, name in enumerate("abc"):
        assert f"{name} AUROC {roc_auc_score(c == TRUTH, P[:, c]):.3f}" in said
        assert f"{name} AUPRC {average_precision_score(c == TRUTH, P[:, c]):.3f}" in said
    assert f"mean {scores['auroc']}" in said
    many = np.arange(60) % 15
    p = RNG.dirichlet(np.ones(15), 60)
    path = plots.plot_classification(tmp_path / "many.svg", many, p, [f"class {i}" for i in range(15)])
    assert "class 14" in texts(path).splitlines()


def test_regression(tmp_path):
    truth, predicted = RNG.random(9), RNG.random(9)
    scores = regression_scores(truth, predicted, resamples=20)
    said = texts(
        plots.plot_regression(tmp_path / "x.svg", truth, predicted, "rate (1/h)", scores)
    ).splitlines()
    assert {"n = 9", f"R² = {scores['r2']}", f"Spearman ρ = {scores['spearman']}"} <= set(said)
    assert {"true rate (1/h)", "predicted rate (1/h)"} <= set(said)


def test_haplotypes(tmp_path):
    real = (RNG.random((20, 30)) < 0.4).astype(np.uint8)
    report = compare_haplotypes(real[:10], real[10:], real, np.arange(30) * 100)
    said = texts(plots.plot_haplotypes(tmp_path / "x.svg", {"one": report, "two": report})).splitlines()
    r = report.scores["allele_frequency_correlation"]
    assert {f"one: r = {r:.3f}", "two: median 0", "real, held out (n = 10)", "share of haplotypes"} <= set(
        said
    )
    assert f"component 1 ({report.explained[0]:.0%} of the real variance)" in said


def test_tags(tmp_path):
    counts = np.array([[1200, 5], [7, 9]])
    scores = {"accuracy": Score(0.9, 0.8, 1.0), "f1_O": Score(0.5, 0.4, 0.6)}
    said = texts(plots.plot_tags(tmp_path / "x.svg", counts, scores, ["O", "B-site"])).splitlines()
    assert {"1,200", "0.500", "k-mers, O", "k-mers, n = 1,221"} <= set(said)
    assert "accuracy" not in said


def test_the_libraries_of_the_extra_are_asked_for(monkeypatch):
    from dnagpt_fast.extras import need

    with pytest.raises(ImportError, match=r"no_such_library is not installed: .*dnagpt-fast\[finetune\]"):
        need("no_such_library")
