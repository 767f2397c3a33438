"""The chains that a model is compared with: what they are fitted on, and how order and pseudo-count are
chosen."""

import math

import numpy as np
import pytest

from dnagpt_fast.evaluation import chains, markov
from dnagpt_fast.evaluation.chains import Chains, both_strands, fit_chains
from dnagpt_fast.evaluation.markov import MarkovChain
from dnagpt_fast.genome.intervals import Intervals
from tests.genome.synthetic import packed_genome, random_letters

DIGITS = {base: digit for digit, base in enumerate("AGCT")}


def codes(text: str) -> np.ndarray:
    return np.array([DIGITS.get(base, -1) for base in text], dtype=np.int64)


def ranges(*rows: tuple[int, int, int]) -> Intervals:
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return Intervals(columns[:, 0], columns[:, 1], columns[:, 2])


def test_genomes_give_equal_parts(monkeypatch):
    monkeypatch.setattr(markov, "CHUNK_BP", 8)
    genomes, held_out = [packed_genome(["ACCC" * 10])] * 2, [ranges((0, 39, 40))] * 2
    assert fit_chains(genomes, held_out, 78).chain.fitted_bp == 2 * 2 * 39
    # every second chunk of each: 0, 16 and 32 (7 bp)
    assert fit_chains(genomes, held_out, 40).chain.fitted_bp == 2 * 2 * 23


def test_both_strands_outside_the_held_out_range_are_fitted():
    found = fit_chains([packed_genome(["ACCC" * 10 + "T" * 40])], [ranges((0, 40, 80))])
    assert found.chain.fitted_bp == 80
    assert found.choosing_bp == 4
    # On the two strands: ACCC and GGGT. C follows AC always, and T is never followed by T.
    usual = found.log_probs(codes("CCACTT"))[1]
    assert math.exp(usual[3]) > 0.8
    assert math.exp(usual[5]) < 0.3


def test_the_order_is_that_of_the_source():
    """A source of order 3: longer chains only split its counts, shorter ones lack the third base before."""
    draw = np.random.default_rng(1)
    table = draw.dirichlet([0.3] * 4, size=64)

    def made(length: int) -> np.ndarray:
        values = [0, 1, 2]
        for u in draw.random(length):
            context = values[-3] * 16 + values[-2] * 4 + values[-1]
            values.append(int(np.searchsorted(np.cumsum(table[context]), u).clip(max=3)))
        return np.array(values)

    chain = MarkovChain(7).fit([made(30_000)])
    found = Chains.of(chain, [made(3_000)])
    assert found.best_order == 3
    # The sequence used for choosing is counted afterwards, on both strands.
    assert chain.fitted_bp == 30_003 + 2 * 3_003
    later = made(3_000)
    order_2, _, best = -found.log_probs(later).mean(axis=1)
    contexts = later[:-3] * 16 + later[1:-2] * 4 + later[2:-1]
    entropy = -float(np.log(table[contexts, later[3:]]).mean())
    # Its other strand is counted too, and does not come from this source.
    assert best == pytest.approx(entropy, abs=0.06)
    assert best < order_2 - 0.05


def test_repeats_of_long_stretches_want_a_high_order_and_noise_a_low_one():
    draw = np.random.default_rng(2)
    element = random_letters(draw, 300)
    noise = [random_letters(draw, 200) for _ in range(100)]
    repeats = fit_chains([packed_genome(["".join(piece + element for piece in noise)])], [ranges()])
    assert repeats.best_order >= 5
    plain = fit_chains([packed_genome([random_letters(draw, 50_000)])], [ranges()])
    assert plain.best_order <= 1 or plain.best_pseudo == chains.PSEUDOS[-1]


def test_tables_stay_in_proportion_to_the_sequence():
    small = fit_chains([packed_genome([random_letters(np.random.default_rng(3), 1_000)])], [ranges()])
    assert 4 ** (small.chain.order + 1) <= 16 * 2_000 < 4 ** (small.chain.order + 2)


def test_without_sequence_to_choose_on_the_chain_keeps_its_order():
    found = Chains.of(MarkovChain(2), [])
    assert found.best_order == 2
    assert found.log_probs(codes("ACGN")).tolist() == [[pytest.approx(math.log(1 / 4))] * 3 + [0.0]] * 3


def test_strands():
    forward, reverse = both_strands(codes("AACGN"))
    assert forward.tolist() == codes("AACGN").tolist()
    assert reverse.tolist() == codes("NCGTT").tolist()
