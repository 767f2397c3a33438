"""Scores of BIO tags: F1 of each tag and of whole spans, with bootstrap intervals over the windows."""

from collections.abc import Sequence

import numpy as np

from dnagpt_fast.evaluation.scores import RESAMPLES, Score, bootstrap, resampled


def tag_names(kinds: Sequence[str]) -> list[str]:
    """The tags in the order of their numbers: O, B-kind, I-kind, ... (Ramshaw and Marcus 1995).

    >>> tag_names(["CDS"])
    ['O', 'B-CDS', 'I-CDS']
    """
    return ["O", *(f"{part}-{kind}" for kind in kinds for part in "BI")]


def find_spans(tags: np.ndarray) -> np.ndarray:
    """The spans in tags (n,), int64 (spans, 3): first place, end, number of the kind, in order.

    A span begins at B, and at an I after O or another kind, for example where a window cuts a span (the rule
    of the CoNLL shared tasks). It ends before the next begin or O.

    >>> find_spans(np.array([0, 1, 2, 1, 0, 4, 4])).tolist()
    [[1, 3, 0], [3, 4, 0], [5, 7, 1]]
    """
    kind = (np.asarray(tags, np.int64) + 1) // 2 - 1
    before = np.concatenate(([-1], kind[:-1]))
    begins = (kind >= 0) & ((np.asarray(tags) % 2 == 1) | (kind != before))
    first = np.flatnonzero(begins)
    changes = np.append(np.flatnonzero(begins | (kind != before)), len(kind))
    end = changes[np.searchsorted(changes, first, side="right")]
    return np.stack([first, end, kind[first]], axis=1)


def confusion_counts(truth: np.ndarray, guess: np.ndarray, tags: int) -> np.ndarray:
    """int64 (tags, tags): rows the true tag, columns the predicted one."""
    return np.bincount(truth * tags + guess, minlength=tags * tags).reshape(tags, tags)


def tag_scores(
    truth: Sequence[np.ndarray],
    guess: Sequence[np.ndarray],
    kinds: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Score]:
    """accuracy, macro_f1 (mean of the tags' F1), f1_<tag>, span_precision, span_recall, span_f1, span_f1_<kind>.

    truth, guess  the tags (n_w,) of each window w, numbered as in `tag_names`

    A span is correct if its kind and both ends are. Spans are counted per window: a span that is cut by a
    window's end counts once in each window. The bootstrap draws windows. A score without any span of its
    kind, true or predicted, is 0. Raises ValueError for windows with different numbers of true and predicted
    tags.
    """
    tags = 1 + 2 * len(kinds)
    confusion = np.zeros((len(truth), tags, tags), np.int64)
    spans = np.zeros((len(truth), 3, len(kinds)), np.int64)  # both, true, predicted
    for i, (t, g) in enumerate(zip(truth, guess, strict=True)):
        if len(t) != len(g):
            raise ValueError(f"window {i}: {len(t)} true tags, {len(g)} predicted ones")
        confusion[i] = confusion_counts(t, g, tags)
        true, predicted = (set(map(tuple, find_spans(x).tolist())) for x in (t, g))
        for row, found in enumerate((true & predicted, true, predicted)):
            for *_, kind in found:
                spans[i, row, kind] += 1

    def scores(rows: np.ndarray) -> dict[str, float]:
        counts, (both, true, predicted) = confusion[rows].sum(0), spans[rows].sum(0)
        hits = np.diagonal(counts)
        f1 = _ratio(2 * hits, counts.sum(0) + counts.sum(1))
        named = {f"f1_{name}": value for name, value in zip(tag_names(kinds), f1.tolist(), strict=True)}
        span_f1 = _ratio(2 * both, true + predicted)
        return {
            "accuracy": float(_ratio(hits.sum(), counts.sum())),
            "macro_f1": float(f1.mean()),
            **named,
            "span_precision": float(_ratio(both.sum(), predicted.sum())),
            "span_recall": float(_ratio(both.sum(), true.sum())),
            "span_f1": float(_ratio(2 * both.sum(), true.sum() + predicted.sum())),
            **{f"span_f1_{kind}": value for kind, value in zip(kinds, span_f1.tolist(), strict=True)},
        }

    return bootstrap(scores, len(truth), resampled(len(truth), resamples, seed))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; 0 where whole is 0."""
    return part / np.maximum(whole, 1)
