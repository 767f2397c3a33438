"""A classifier of Markov chains: one chain for each class, fitted on its training sequences."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from dnagpt_fast.evaluation.chains import ENTRIES_PER_BASE
from dnagpt_fast.evaluation.markov import MarkovChain, joined, text_codes

MOST_ORDER = 8
PSEUDOS = (1.0, 4.0, 16.0, 64.0)


class ClassChains:
    """log P(sequence | class) + log P(class) of every order and pseudo-count; `order` and `pseudo` are the best ones.

    They are chosen by `measure`, (classes int (n,), probabilities (n, C)) -> a number that shall be high, on the
    validation sequences. The strand is that of the sequence: labels may depend on it.
    """

    def __init__(
        self,
        train: Sequence[str],
        classes: np.ndarray,
        validation: Sequence[str],
        validation_classes: np.ndarray,
        measure: Callable[[np.ndarray, np.ndarray], float],
    ) -> None:
        count = int(classes.max()) + 1
        share = np.bincount(classes, minlength=count) / len(classes)
        self._prior = np.log(share)
        bases = min(
            sum(len(text) for text, c in zip(train, classes, strict=True) if c == wanted)
            for wanted in range(count)
        )
        order = max(n for n in range(MOST_ORDER + 1) if n == 0 or 4 ** (n + 1) <= ENTRIES_PER_BASE * bases)
        self._chains = []
        for wanted in range(count):
            own = (text_codes(text) for text, c in zip(train, classes, strict=True) if c == wanted)
            self._chains.append(MarkovChain(order).fit(joined(own)))
        best = -np.inf
        self.order, self.pseudo = 0, PSEUDOS[0]
        for pseudo in PSEUDOS:
            logs = self._logs(validation, pseudo)
            for n in range(order + 1):
                value = measure(validation_classes, self._probabilities(logs[:, :, n]))
                if value > best:
                    best, self.order, self.pseudo = value, n, pseudo

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities of the classes, float64 (n, C)."""
        return self._probabilities(self._logs(texts, self.pseudo)[:, :, self.order])

    def _logs(self, texts: Sequence[str], pseudo: float) -> np.ndarray:
        """float64 (n, C, orders): log P(text | class)."""
        rows = []
        for part in _parts(texts):
            codes = np.concatenate([np.append(text_codes(text), -1) for text in part])
            starts = np.cumsum([0, *(len(text) + 1 for text in part)])[:-1]
            sums = [
                np.add.reduceat(chain.log_probs_by_order(codes, pseudo), starts, axis=1)
                for chain in self._chains
            ]
            rows.append(np.stack(sums).transpose(2, 0, 1))
        return np.concatenate(rows)

    def _probabilities(self, logs: np.ndarray) -> np.ndarray:
        joint = logs + self._prior
        exponents = np.exp(joint - joint.max(1, keepdims=True))
        return exponents / exponents.sum(1, keepdims=True)


def _parts(texts: Sequence[str], most_bp: int = 1 << 19) -> Iterator[list[str]]:
    """The texts in runs of about `most_bp`, which bounds the memory."""
    part: list[str] = []
    size = 0
    for text in texts:
        part.append(text)
        size += len(text)
        if size >= most_bp:
            yield part
            part, size = [], 0
    if part:
        yield part
