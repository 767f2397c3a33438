"""Scores of tags against scikit-learn and a reading of the spans letter by letter."""

import numpy as np
import pytest

from dnagpt_fast.evaluation import plots
from dnagpt_fast.evaluation.tag_scores import confusion_counts, find_spans, tag_names, tag_scores

KINDS = ["exon", "intron"]


def read_spans(tags):
    """One tag after the other, as a reader of the text would."""
    spans, open_ = [], None
    for place, name in enumerate([*(tag_names(KINDS)[t] for t in tags), "O"]):
        part, _, kind = name.partition("-")
        if open_ and (part != "I" or kind != open_[1]):
            spans.append((open_[0], place, open_[1]))
            open_ = None
        if part == "B" or (part == "I" and open_ is None):
            open_ = (place, kind)
    return spans


def random_windows(seed, windows=12):
    rng = np.random.default_rng(seed)
    return [rng.choice(5, size=rng.integers(1, 30), p=[0.3, 0.1, 0.3, 0.1, 0.2]) for _ in range(windows)]


def test_spans_by_hand():
    # an I after O, a B inside, a change of kind without a B
    assert find_spans(np.array([2, 2, 0, 1, 2, 1, 4, 3])).tolist() == [
        [0, 2, 0], [3, 5, 0], [5, 6, 0], [6, 7, 1], [7, 8, 1],
    ]  # fmt: skip
    assert find_spans(np.zeros(4, np.int64)).shape == (0, 3)
    assert find_spans(np.zeros(0, np.int64)).shape == (0, 3)


def test_spans_of_random_tags():
    for tags in random_windows(0, 200):
        found = [(start, end, KINDS[kind]) for start, end, kind in find_spans(tags).tolist()]
        assert found == read_spans(tags)


def test_scores_are_those_of_scikit_learn_and_of_sets_of_spans():
    metrics = pytest.importorskip("sklearn.metrics")
    truth = random_windows(1)
    rng = np.random.default_rng(2)
    guess = [np.where(rng.random(len(t)) < 0.1, rng.integers(0, 5, len(t)), t) for t in truth]
    found = tag_scores(truth, guess, KINDS, resamples=50)
    t, g = np.concatenate(truth), np.concatenate(guess)
    f1 = metrics.f1_score(t, g, labels=range(5), average=None)
    assert [found[f"f1_{name}"].value for name in tag_names(KINDS)] == pytest.approx(f1)
    assert found["macro_f1"].value == pytest.approx(f1.mean())
    assert found["accuracy"].value == pytest.approx(metrics.accuracy_score(t, g))
    true, predicted = (
        {(w, *s) for w, x in enumerate(side) for s in read_spans(x)} for side in (truth, guess)
    )
    both = len(true & predicted)
    assert 0 < both < len(true)
    assert found["span_precision"].value == pytest.approx(both / len(predicted))
    assert found["span_recall"].value == pytest.approx(both / len(true))
    assert found["span_f1"].value == pytest.approx(2 * both / (len(true) + len(predicted)))
    of_kind = [{s for s in side if s[3] == "intron"} for side in (true, predicted)]
    assert found["span_f1_intron"].value == pytest.approx(
        2 * len(of_kind[0] & of_kind[1]) / sum(map(len, of_kind))
    )
    assert found["span_f1"].low < found["span_f1"].value < found["span_f1"].high
    assert all(score == (1, 1, 1) for score in tag_scores(truth, truth, KINDS, resamples=5).values())


def test_what_does_not_occur_scores_zero_and_windows_must_match():
    tags = [np.array([0, 1, 2])]
    found = tag_scores(tags, tags, KINDS, resamples=3)
    assert (found["f1_B-exon"].value, found["f1_B-intron"].value, found["span_f1_intron"].value) == (1, 0, 0)
    with pytest.raises(ValueError, match="window 0: 3 true tags, 2 predicted ones"):
        tag_scores(tags, [np.array([0, 1])], KINDS)


def test_the_figure(tmp_path):
    truth, guess = random_windows(3), random_windows(3)
    guess[0] = np.zeros_like(guess[0])
    scores = tag_scores(truth, guess, KINDS, resamples=5)
    counts = confusion_counts(np.concatenate(truth), np.concatenate(guess), 5)
    assert counts.sum() == sum(map(len, truth))
    path = plots.plot_tags(tmp_path / "tags.png", counts, scores, tag_names(KINDS))
    assert path.read_bytes().startswith(b"\x89PNG")
