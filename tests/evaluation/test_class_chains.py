"""The classifier of Markov chains: its probabilities against the chains of each class, and what it can tell apart."""

import numpy as np

from dnagpt_fast.evaluation.class_chains import ClassChains
from dnagpt_fast.evaluation.markov import MarkovChain, text_codes

RNG = np.random.default_rng(4)
TEXTS = [
    "".join(RNG.choice(list("ACGT"), 60, p=p))
    for p in [(0.4, 0.1, 0.1, 0.4)] * 30 + [(0.1, 0.4, 0.4, 0.1)] * 30
]
CLASSES = np.repeat([0, 1], 30)


def right(truth, probabilities):
    return float((probabilities.argmax(1) == truth).mean())


def test_probabilities_are_those_of_one_chain_for_each_class():
    texts, classes = TEXTS[5:], CLASSES[5:]
    chains = ClassChains(texts, classes, texts[::2], classes[::2], right)
    found = chains.predict(["ACGTN", "GG"])
    logs = np.zeros((2, 2))
    for c in (0, 1):
        chain = MarkovChain(8)
        for text, its in zip(texts, classes, strict=True):
            if its == c:
                chain.fit([text_codes(text)])
        for i, text in enumerate(("ACGTN", "GG")):
            logs[i, c] = chain.log_probs(text_codes(text), chains.order, chains.pseudo).sum() + np.log(
                (classes == c).mean()
            )
    wanted = np.exp(logs) / np.exp(logs).sum(1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_composition_is_told_apart():
    chains = ClassChains(TEXTS[::2], CLASSES[::2], TEXTS[1::4], CLASSES[1::4], right)
    assert right(CLASSES[3::4], chains.predict(TEXTS[3::4])) == 1.0
