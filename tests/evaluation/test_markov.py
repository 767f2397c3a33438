"""The Markov chain against counting by hand, and on sources with known probabilities."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnagpt_fast.evaluation.markov import PSEUDO, MarkovChain, base_codes, joined, spread
from dnagpt_fast.genome.intervals import Intervals
from tests.genome.synthetic import packed_genome

LETTERS = "AGCT"


def codes(text: str) -> np.ndarray:
    return np.array([LETTERS.find(base) for base in text], dtype=np.int64)


def by_hand(training: list[str], text: str, order: int) -> list[float]:
    """The docstring's equation with strings and a Counter."""
    counts = Counter()
    for piece in training:
        for n in range(order + 1):
            for end in range(n, len(piece)):
                if "N" not in piece[end - n : end + 1]:
                    counts[piece[end - n : end + 1]] += 1

    def probability(context: str, base: str) -> float:
        shorter = probability(context[1:], base) if context else 1 / 4
        total = sum(counts[context + letter] for letter in LETTERS)
        return (counts[context + base] + PSEUDO * shorter) / (total + PSEUDO)

    result = []
    for end, base in enumerate(text):
        context = text[max(end - order, 0) : end].split("N")[-1]
        result.append(0.0 if base == "N" else math.log(probability(context, base)))
    return result


DNA = st.text("ACGTN", max_size=60)


@given(st.lists(DNA, max_size=3), DNA, st.integers(0, 3))
@settings(deadline=None)
def test_log_probs_are_those_counted_by_hand(training, text, order):
    chain = MarkovChain(order).fit(codes(piece) for piece in training)
    np.testing.assert_allclose(
        chain.log_probs(codes(text)), by_hand(training, text, order), rtol=1e-12, atol=1e-12
    )
    assert chain.fitted_bp == sum(len(piece) - piece.count("N") for piece in training)


def test_every_order_and_pseudo_count_of_one_chain_is_that_of_a_chain_of_its_own():
    text = codes("ACGTTGCANACGGTTACGACG")
    chain = MarkovChain(4).fit([text]).fit([text[:7]])
    for order in range(5):
        alone = MarkovChain(order).fit([text, text[:7]])
        assert np.array_equal(chain.log_probs(text, order), alone.log_probs(text))
        assert np.array_equal(chain.log_probs(text, order, 0.5), alone.log_probs(text, pseudo=0.5))
    assert not np.array_equal(chain.log_probs(text, 4, 0.5), chain.log_probs(text))


def test_probabilities_of_a_context_sum_to_one():
    chain = MarkovChain(2).fit([codes("ACGTTGCANACGGT")])
    for context in map("".join, product(LETTERS, repeat=2)):
        total = sum(math.exp(chain.log_probs(codes(context + base))[-1]) for base in LETTERS)
        assert total == pytest.approx(1)


def test_an_unfitted_chain_is_uniform_and_a_period_is_learned():
    assert MarkovChain(5).log_probs(codes("ACGTACGT")).tolist() == pytest.approx([math.log(1 / 4)] * 8)
    # ACGT repeated is certain from order 1 on; the rest comes from the pseudo-count.
    chain = MarkovChain(5).fit([codes("ACGT" * 10_000)])
    assert -chain.log_probs(codes("ACGT" * 100))[5:].mean() < 1e-3


def test_codes_of_a_packed_genome():
    genome = packed_genome(["ACG", "TTNGCA"])
    assert base_codes(genome, 1, 1, 6).tolist() == codes("TNGCA").tolist()


def test_chunks_are_spread_over_the_ranges():
    one = np.array([0, 1])
    ranges = Intervals(one, np.array([0, 5]), np.array([10 << 20, (10 << 20) + 5]))
    everything = spread(ranges, 1 << 40)
    assert len(everything) == 20
    assert sum(end - start for _, start, end in everything) == 20 << 20
    some = spread(ranges, 5 << 20)
    assert sum(end - start for _, start, end in some) == 5 << 20
    assert {contig for contig, _, _ in some} == {0, 1}


def test_a_negative_order_is_refused():
    with pytest.raises(ValueError, match="order -1"):
        MarkovChain(-1)


def test_joined_sequences_count_and_predict_as_alone():
    rng = np.random.default_rng(5)
    sequences = [rng.integers(-1, 4, rng.integers(0, 9)) for _ in range(300)]
    together = list(joined(sequences, most_bp=50))
    assert all(len(codes) <= 50 for codes in together)
    assert len(together) < 60
    chain, alone = MarkovChain(3).fit(sequences), MarkovChain(3)
    for codes in sequences:
        alone.fit([codes])
    assert chain.fitted_bp == alone.fitted_bp
    for one, other in zip(chain._counts, alone._counts, strict=True):
        np.testing.assert_array_equal(one, other)
    losses = sum(chain.log_probs_by_order(codes).sum(1) for codes in sequences)
    np.testing.assert_allclose(sum(chain.log_probs_by_order(c).sum(1) for c in together), losses, rtol=1e-12)
    assert list(joined([])) == []
