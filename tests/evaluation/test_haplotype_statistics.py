"""The statistics against plain definitions; they recognise real haplotypes, copies and missing linkage."""

import numpy as np
import pytest

from dnagpt_fast.evaluation.haplotype_models import sample_site_frequencies, sample_training
from dnagpt_fast.evaluation.haplotype_statistics import (
    adversarial_accuracy,
    compare_haplotypes,
    distance_bins,
    ld_decay,
    ld_decay_error,
    nearest_distance,
    r_squared,
)


def population(count, sites=60, seed=0):
    """Mosaics of 8 founders that switch with probability 0.05 a site: linked as real haplotypes are."""
    founders = (np.random.default_rng(99).random((8, sites)) < np.linspace(0.1, 0.6, sites)).astype(np.uint8)
    rng = np.random.default_rng(seed)
    at = rng.integers(8, size=count)
    out = np.empty((count, sites), np.uint8)
    for s in range(sites):
        at = np.where(rng.random(count) < 0.05, rng.integers(8, size=count), at)
        out[:, s] = founders[at, s]
    return out


POSITION = np.cumsum(np.random.default_rng(5).integers(1, 200, size=60))


def test_r_squared_is_that_of_corrcoef():
    alleles = population(50)
    alleles[:, 3] = 1
    with np.errstate(invalid="ignore", divide="ignore"):
        wanted = np.nan_to_num(np.corrcoef(alleles.T) ** 2)
    assert np.allclose(r_squared(alleles), wanted)


def test_ld_decay_is_the_mean_of_each_bin():
    alleles, position = population(50, 12), POSITION[:12]
    edges = distance_bins(position, 4)
    mean, pairs = ld_decay(alleles, position, edges)
    assert pairs.sum() == 12 * 11 // 2
    r2 = r_squared(alleles)
    for b in range(len(edges) - 1):
        values = [
            r2[i, j]
            for i in range(12)
            for j in range(i + 1, 12)
            if edges[b] <= position[j] - position[i] < edges[b + 1]
        ]
        assert mean[b] == pytest.approx(np.mean(values))


def test_nearest_distance_is_the_least_hamming_distance():
    a, b = population(9, seed=1), population(7, seed=2)
    assert nearest_distance(a, b).tolist() == [min(int((x != y).sum()) for y in b) for x in a]
    assert nearest_distance(b, b).tolist() == [0] * 7


def test_real_against_real_is_good_and_copies_show():
    training, real = population(200, seed=1), population(100, seed=2)
    fresh = compare_haplotypes(population(100, seed=3), real, training, POSITION).scores
    copied = compare_haplotypes(training[:100], real, training, POSITION).scores
    single = compare_haplotypes(sample_site_frequencies(training, 100), real, training, POSITION).scores
    assert fresh["allele_frequency_correlation"] > 0.9
    assert fresh["copies"] < 0.1
    assert copied["copies"] == 1
    assert copied["nearest_training_distance"] == 0
    assert single["allele_frequency_correlation"] > 0.9
    assert single["ld_correlation"] < fresh["ld_correlation"] - 0.3
    assert single["ld_decay_error"] > 2 * fresh["ld_decay_error"]
    assert single["pca_wasserstein"] > fresh["pca_wasserstein"]


def test_copies_of_one_haplotype_show_in_the_scores():
    real = population(50, seed=2)
    scores = compare_haplotypes(np.repeat(real[:1], 20, 0), real, real, POSITION).scores
    assert scores["distinct"] == 1 / 20
    assert scores["ld_correlation"] == 0


def test_components_in_which_real_ones_do_not_vary_do_not_count():
    # three different haplotypes vary in two components only; rounding makes the others' spread 1e-16, not 0
    real = population(3, seed=2)[np.arange(30) % 3]
    made = population(30, seed=3)
    assert compare_haplotypes(made, real, real, POSITION).scores["pca_wasserstein"] < 10


def test_real_haplotypes_that_are_all_the_same():
    real = population(10)
    with pytest.raises(ValueError, match="the 10 real haplotypes are all the same"):
        compare_haplotypes(real, real[:1].repeat(10, 0), real, POSITION)


def test_adversarial_accuracy_is_that_of_its_definition():
    real, made = population(30, seed=1), population(20, seed=2)
    of_real, of_made = adversarial_accuracy(made, real[:20])

    def share(mine, others):
        nearer = []
        for i, row in enumerate(mine):
            own = min((row != other).sum() for j, other in enumerate(mine) if j != i)
            nearer.append(min((row != other).sum() for other in others) > own)
        return np.mean(nearer)

    assert (of_real, of_made) == (share(real[:20], made), share(made, real[:20]))


def test_adversarial_accuracy_of_new_ones_of_copies_and_of_unlike_ones():
    training, real = population(100, seed=1), population(100, seed=2)
    new = compare_haplotypes(population(100, seed=3), real, training, POSITION).scores
    copied = compare_haplotypes(sample_training(training, 100, seed=4), real, training, POSITION).scores
    unlike = compare_haplotypes(sample_site_frequencies(training, 100), real, training, POSITION).scores
    assert abs(new["aats"] - 0.5) < 0.1  # sd of a share of 200: 0.035
    assert abs(new["privacy_loss"]) < 0.1
    assert copied["copies"] == 1
    assert copied["privacy_loss"] > 0.2
    assert unlike["aats_real"] > 0.9


def test_shapes_are_checked():
    real = population(10)
    with pytest.raises(
        ValueError, match=r"generated haplotypes have shape \(10, 59\): wanted \(2 or more, 60 variants\)"
    ):
        compare_haplotypes(real[:, :59], real, real, POSITION)


def test_the_error_of_ld_is_that_of_repeated_draws():
    edges = distance_bins(POSITION, 4)
    draws = [ld_decay(population(60, seed=seed), POSITION, edges)[0] for seed in range(40)]
    errors = [ld_decay_error(population(60, seed=seed), POSITION, edges) for seed in range(6)]
    ratio = np.mean(errors, axis=0) / np.std(draws, axis=0)
    assert (ratio > 0.6).all(), ratio
    assert (ratio < 1.7).all(), ratio


def test_one_person_has_no_error_of_ld():
    edges = distance_bins(POSITION, 4)
    assert np.isnan(ld_decay_error(population(2), POSITION, edges)).all()
