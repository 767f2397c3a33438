"""The simple models of haplotypes: what their samples keep, and their losses by enumeration."""

from itertools import product

import numpy as np
import pytest

from dnagpt_fast.evaluation.haplotype_models import (
    MISMATCHES,
    RATES_PER_BP,
    Mosaic,
    fit_mosaic,
    markov_loss,
    sample_markov,
    sample_site_frequencies,
    sample_training,
    site_frequency_loss,
)
from dnagpt_fast.evaluation.haplotype_statistics import allele_frequency, r_squared
from tests.evaluation.test_haplotype_statistics import population


def test_site_frequencies_are_kept_and_linkage_is_not():
    training = population(400, seed=1)
    made = sample_site_frequencies(training, 2000, seed=4)
    # 5 standard deviations of a frequency of 1/2 over 2,000 draws
    assert np.abs(allele_frequency(made) - allele_frequency(training)).max() < 5 * 0.5 / np.sqrt(2000)
    assert r_squared(made)[np.triu_indices(60, 1)].mean() < 0.01


def test_markov_sampling_keeps_what_its_order_sees():
    # two haplotypes only: the earlier variants determine the next one, so no new haplotype can be generated
    training = np.array([[0, 1, 0, 1, 1], [1, 0, 0, 1, 0]] * 10, np.uint8)
    made = sample_markov(training, 50, order=4, seed=1)
    assert {tuple(row) for row in made.tolist()} == {tuple(row) for row in training.tolist()}
    # both haplotypes share the third variant: after it, order 1 no longer knows which haplotype it follows
    assert len({tuple(row) for row in sample_markov(training, 200, order=1, seed=1).tolist()}) == 4


def test_resampled_training_haplotypes_are_copies():
    training = population(20)
    made = sample_training(training, 50, seed=3)
    assert {row.tobytes() for row in made} <= {row.tobytes() for row in training}


SIX = population(7, 6, seed=3)
PLACES = np.array([10, 25, 30, 90, 130, 131])


@pytest.mark.parametrize(
    "loss",
    [
        lambda rows: site_frequency_loss(SIX, rows),
        lambda rows: markov_loss(SIX, rows, order=3),
        Mosaic(SIX, PLACES, 0.01, 0.02).loss,
    ],
    ids=["sites", "chain", "mosaic"],
)
def test_probabilities_of_all_haplotypes_add_up_to_one(loss):
    every = np.array(list(product((0, 1), repeat=6)), np.uint8)
    assert np.exp(-loss(every)).sum() == pytest.approx(1)


def test_a_chain_uses_the_longest_context_that_occurs():
    training = np.array([[0, 1, 0, 1]] * 3 + [[1, 1, 1, 0]] * 2, np.uint8)
    # sites: 2/5 ones drawn to (2 + 1)/(5 + 2), and so on; after 0 1 0 three haplotypes, after 0 1 1 only the last
    # variant's two
    seen, new = markov_loss(training, np.array([[0, 1, 0, 1], [0, 1, 1, 1]], np.uint8), order=3)
    first, second, third, fourth = (np.array([2, 5, 2, 3]) + 1) / 7
    start = (1 - (2 + first) / 6) * (3 + second) / 4
    assert np.exp(-seen) == pytest.approx(start * (1 - third / 4) * (3 + fourth) / 4)
    assert np.exp(-new) == pytest.approx(start * third / 4 * fourth / 3)


def test_a_mosaic_without_switches_or_mismatches_is_a_copy():
    exact = Mosaic(SIX, PLACES, 1e-12, 1e-12)
    assert np.exp(-exact.loss(SIX[:1])) == pytest.approx((SIX[0] == SIX).all(1).mean())
    assert {row.tobytes() for row in exact.sample(40)} <= {row.tobytes() for row in SIX}


def test_the_loss_of_a_mosaic_is_the_sum_over_all_ways():
    mosaic, row = Mosaic(SIX[:3, :4], PLACES[:4], 0.01, 0.05), SIX[4, :4]
    switch = 1 - np.exp(-0.01 * np.diff(PLACES[:4]))
    total = 0.0
    for way in product(range(3), repeat=4):
        p = 1 / 3
        for s, k in enumerate(way):
            if s:
                p *= switch[s - 1] / 3 + (1 - switch[s - 1]) * (way[s - 1] == k)
            p *= 0.95 if SIX[k, s] == row[s] else 0.05
        total += p
    assert mosaic.loss(row[None])[0] == pytest.approx(-np.log(total))


def test_the_fit_finds_the_rates_of_a_mosaic():
    rng = np.random.default_rng(1)
    training = (rng.random((20, 200)) < 0.4).astype(np.uint8)
    places = np.arange(200) * 100
    made = Mosaic(training, places, float(RATES_PER_BP[6]), float(MISMATCHES[3])).sample(60, seed=2)
    found = fit_mosaic(training, made, places)
    assert abs(np.searchsorted(RATES_PER_BP, found.rate_per_bp) - 6) <= 1
    assert abs(np.searchsorted(MISMATCHES, found.mismatch) - 3) <= 1
