"""Simple baselines on the same split: a fine-tuned DNAGPT must beat them to be worth its cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, product

import numpy as np

from dnagpt_fast.extras import need

_DIGIT = np.full(256, 255, np.uint8)
_DIGIT[np.frombuffer(b"ACGT", np.uint8)] = range(4)
PSEUDO = 1.0


def kmer_counts(sequences: Sequence[str], k: int) -> np.ndarray:
    """float32 (n, 4^k): the share of each k-mer among the overlapping k-mers of a text; k-mers with N are
    excluded."""
    out = np.zeros((len(sequences), 4**k), np.float32)
    powers = 4 ** np.arange(k)[::-1]
    for row, text in zip(out, sequences, strict=True):
        digits = _DIGIT[np.frombuffer(text.encode("ascii"), np.uint8)]
        if len(digits) < k:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(digits, k)
        ids = windows[(windows < 4).all(1)] @ powers
        row += np.bincount(ids, minlength=4**k)
        row /= max(len(ids), 1)
    return out


def kmer_names(k: int) -> list[str]:
    """The k-mers in the order of `kmer_counts`."""
    return ["".join(letters) for letters in product("ACGT", repeat=k)]


def position_features(sequences: Sequence[str]) -> np.ndarray:
    """float32 (n, 4 L): the base at each of the L positions, one-hot; N is all zero.

    Raises ValueError where the texts differ in length.
    """
    lengths = {len(s) for s in sequences}
    if len(lengths) != 1:
        raise ValueError(f"texts of {min(lengths)} to {max(lengths)} bases: wanted one length")
    digits = np.stack([_DIGIT[np.frombuffer(s.encode("ascii"), np.uint8)] for s in sequences])
    return (digits[:, :, None] == np.arange(4)).reshape(len(sequences), -1).astype(np.float32)


@dataclass(frozen=True)
class ReadOut:
    """A linear model of standardised features. penalty: the one with the lowest loss on the validation rows; loss: that
    loss. predict: features (n, F) -> probabilities (n, C), or values (n,)."""

    predict: Callable[[np.ndarray], np.ndarray]
    penalty: float
    loss: float


def choose_logistic(
    train: np.ndarray, classes: np.ndarray, validation: np.ndarray, validation_classes: np.ndarray
) -> ReadOut:
    """Logistic regression with balanced classes. Features are standardised with the mean and standard deviation of the
    training rows; of five L2 penalties (C of scikit-learn) the one with the lowest log loss on the validation rows is
    kept."""
    linear, pre, metrics = (
        need("sklearn.linear_model"),
        need("sklearn.preprocessing"),
        need("sklearn.metrics"),
    )
    scale = pre.StandardScaler().fit(train)
    features, checked = scale.transform(train), scale.transform(validation)
    best, penalty, least = None, 0.0, np.inf
    for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        model = linear.LogisticRegression(C=strength, max_iter=2000, class_weight="balanced")
        model.fit(features, classes)
        loss = metrics.log_loss(validation_classes, model.predict_proba(checked), labels=model.classes_)
        if loss < least:
            best, penalty, least = model, strength, float(loss)
    assert best is not None
    return ReadOut(lambda rows: best.predict_proba(scale.transform(rows)), penalty, least)


def logistic_regression(
    train: np.ndarray,
    classes: np.ndarray,
    test: np.ndarray,
    *,
    validation: np.ndarray,
    validation_classes: np.ndarray,
) -> np.ndarray:
    """Probabilities (n, C) on `test`, float64, of `choose_logistic`."""
    return choose_logistic(train, classes, validation, validation_classes).predict(test)


def choose_ridge(
    train: np.ndarray, values: np.ndarray, validation: np.ndarray, validation_values: np.ndarray
) -> ReadOut:
    """Ridge regression. Features are standardised with the mean and standard deviation of the training rows; of six
    penalties the one with the lowest squared error on the validation rows is kept."""
    linear, pre = need("sklearn.linear_model"), need("sklearn.preprocessing")
    scale = pre.StandardScaler().fit(train)
    features, checked = scale.transform(train), scale.transform(validation)
    best, penalty, least = None, 0.0, np.inf
    for strength in (1.0, 1e1, 1e2, 1e3, 1e4, 1e5):
        model = linear.Ridge(alpha=strength).fit(features, values)
        error = float(np.mean((model.predict(checked) - validation_values) ** 2))
        if error < least:
            best, penalty, least = model, strength, error
    assert best is not None
    return ReadOut(lambda rows: best.predict(scale.transform(rows)), penalty, least)


def ridge(
    train: np.ndarray,
    values: np.ndarray,
    test: np.ndarray,
    *,
    validation: np.ndarray,
    validation_values: np.ndarray,
) -> np.ndarray:
    """Predictions (n,) on `test` of `choose_ridge`."""
    return choose_ridge(train, values, validation, validation_values).predict(test)


def gradient_boosting(
    train: np.ndarray,
    values: np.ndarray,
    test: np.ndarray,
    *,
    validation: np.ndarray,
    validation_values: np.ndarray,
) -> np.ndarray:
    """Predictions (n,) on `test` by boosted trees, a non-linear model. Of 400 trees it uses the first t, with
    the t that has the lowest squared error on the validation rows."""
    trees = need("sklearn.ensemble").HistGradientBoostingRegressor(
        learning_rate=0.03, max_iter=400, early_stopping=False, random_state=0
    )
    trees.fit(train, values)
    errors = [np.mean((guess - validation_values) ** 2) for guess in trees.staged_predict(validation)]
    return next(islice(trees.staged_predict(test), int(np.argmin(errors)), None))


class WeightMatrix:
    """log P(text | positive) - log P(text | negative), with a distribution of bases at each place.

    order     0: places are independent (position weight matrix, Staden 1984); 1: given the base before (weight array,
              Zhang and Marr 1993)
    before, after  bases of the middle that are used, on each side of it
    Counts are raised by PSEUDO. A place with N, or after N, adds nothing.
    """

    def __init__(
        self, texts: Sequence[str], positive: np.ndarray, order: int, before: int, after: int
    ) -> None:
        self._order, self._before, self._after = order, before, after
        states = self._states(texts)
        one_hot = (states[:, :, None] == np.arange(4 ** (order + 1))).astype(np.float64)
        tables = []
        for mine in (positive, ~positive):
            counts = one_hot[mine].sum(0) + PSEUDO
            counts = counts.reshape(counts.shape[0], -1, 4)
            tables.append(np.log(counts / counts.sum(2, keepdims=True)).reshape(counts.shape[0], -1))
        self._ratio = np.concatenate([tables[0] - tables[1], np.zeros((len(tables[0]), 1))], axis=1)

    def _states(self, texts: Sequence[str]) -> np.ndarray:
        """int64 (n, L): the base at each place, or the pair of the one before and itself; the last number with N. The
        first place has no base before it: its states are those of A before it."""
        middle = len(texts[0]) // 2
        cut = [text[middle - self._before : middle + self._after] for text in texts]
        digits = np.stack([_DIGIT[np.frombuffer(text.encode("ascii"), np.uint8)] for text in cut])
        digits = np.minimum(digits, 4).astype(np.int64)
        if not self._order:
            return digits
        earlier = np.concatenate([np.zeros((len(digits), 1), np.int64), digits[:, :-1]], axis=1)
        return np.where((digits < 4) & (earlier < 4), 4 * earlier + digits, 16)

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (n,)"""
        states = self._states(texts)
        return self._ratio[np.arange(states.shape[1]), states].sum(1)
