"""How well generated haplotypes resemble real ones: allele frequencies, linkage disequilibrium, PCA, and
copying.

These measures are used to judge artificial genomes (Yelmen et al. 2021, PLoS Genetics 17:e1009303).
All functions take alleles as uint8 (haplotypes, S).
"""

from dataclasses import dataclass

import numpy as np

from dnagpt_fast.extras import need

LD_BINS = 20
JACKKNIFE_GROUPS = 20
PCA_COMPONENTS = 6


def allele_frequency(alleles: np.ndarray) -> np.ndarray:
    """float64 (S,): share of haplotypes with the alternative allele."""
    return alleles.mean(0, dtype=np.float64)


def r_squared(alleles: np.ndarray) -> np.ndarray:
    """float64 (S, S): squared correlation of each pair of variants; 0 where one of the two does not vary."""
    centred = alleles - allele_frequency(alleles)
    spread = np.sqrt((centred**2).sum(0))
    scaled = centred / np.where(spread > 0, spread, np.inf)
    return (scaled.T @ scaled) ** 2


def ld_decay(
    alleles: np.ndarray, position_bp: np.ndarray, edges_bp: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean r2 of the pairs whose distance is in each bin [edges_bp[i], edges_bp[i + 1]), and the number of
    these pairs: (float64 (bins,), int64 (bins,))."""
    i, j = np.triu_indices(len(position_bp), 1)
    bins = np.searchsorted(edges_bp, position_bp[j] - position_bp[i], side="right") - 1
    inside = (bins >= 0) & (bins < len(edges_bp) - 1)
    values = r_squared(alleles)[i, j]
    count = np.bincount(bins[inside], minlength=len(edges_bp) - 1)
    total = np.bincount(bins[inside], values[inside], minlength=len(edges_bp) - 1)
    return total / np.maximum(count, 1), count


def ld_decay_error(alleles: np.ndarray, position_bp: np.ndarray, edges_bp: np.ndarray) -> np.ndarray:
    """float64 (bins,): standard errors of `ld_decay` over the haplotypes, by the delete-a-group jackknife (Kott 2001).

    A bootstrap would draw haplotypes twice, which raises r2. Haplotypes 2i and 2i + 1 are one person's and stay
    together.
    """
    person = np.arange(len(alleles)) // 2
    groups = min(JACKKNIFE_GROUPS, int(person[-1]) + 1)
    if groups < 2:
        return np.full(len(edges_bp) - 1, np.nan)
    left_out = [ld_decay(alleles[person % groups != g], position_bp, edges_bp)[0] for g in range(groups)]
    return np.sqrt((groups - 1) * np.var(left_out, axis=0))


def distance_bins(position_bp: np.ndarray, bins: int = LD_BINS) -> np.ndarray:
    """Bin edges, float64 (bins + 1,), such that each bin has about the same number of pairs of variants."""
    i, j = np.triu_indices(len(position_bp), 1)
    edges = np.quantile(position_bp[j] - position_bp[i], np.linspace(0, 1, bins + 1))
    edges = np.unique(edges)
    edges[-1] += 1
    return edges


def differing(alleles: np.ndarray, others: np.ndarray) -> np.ndarray:
    """int64 (n, m): the number of variants at which two haplotypes differ."""
    # |a - b| summed = a(1 - b) + (1 - a)b, two matrix products of small integers, exact in float64
    a, b = alleles.astype(np.float64), others.astype(np.float64)
    return (a @ (1 - b).T + (1 - a) @ b.T).round().astype(np.int64)


def nearest_distance(alleles: np.ndarray, others: np.ndarray) -> np.ndarray:
    """int64 (n,): the number of variants at which each haplotype differs from the nearest one of `others`."""
    return differing(alleles, others).min(1)


def farther_than_own(alleles: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool (n,): whether the nearest haplotype of `others` is farther than the nearest other one of `alleles`."""
    own = differing(alleles, alleles)
    np.fill_diagonal(own, alleles.shape[1] + 1)
    return nearest_distance(alleles, others) > own.min(1)


def adversarial_accuracy(made: np.ndarray, real: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The nearest-neighbour adversarial accuracy (AATS) of Yale et al. 2020 in its two parts, over real and over
    generated haplotypes; AATS is their mean.

    Each is the share of haplotypes whose nearest neighbour is of its own set: 0.5 for two samples of one population,
    towards 1 for generated ones unlike the real, towards 0 for copies. Of the larger set, as many as the smaller has
    are drawn with the seed.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    size = min(len(made), len(real))
    made, real = (rows[np.sort(rng.permutation(len(rows))[:size])] for rows in (made, real))
    return float(farther_than_own(real, made).mean()), float(farther_than_own(made, real).mean())


@dataclass(frozen=True)
class HaplotypeReport:
    """The scores, and the data of the plots.

    scores  allele_frequency_correlation, allele_frequency_rmse, ld_correlation (of r2 over all pairs), ld_decay_error
            (mean absolute difference of the curves), pca_wasserstein (mean over the components in which the
            real haplotypes vary, in units of their standard deviations), nearest_training_distance (median,
            variants), copies (share at distance 0), distinct (share of different haplotypes), aats (with aats_real
            and aats_made, its parts; ideal 0.5), privacy_loss (aats minus that against the training haplotypes;
            above 0: nearer to them than to unseen ones)
    *ld_error   standard errors of the means of r2, from the jackknife over people
    explained   share of the variance of the real haplotypes in each component
    """

    scores: dict[str, float]
    frequency: np.ndarray
    real_frequency: np.ndarray
    ld_edges_bp: np.ndarray
    ld: np.ndarray
    real_ld: np.ndarray
    ld_error: np.ndarray
    real_ld_error: np.ndarray
    explained: np.ndarray
    components: np.ndarray
    real_components: np.ndarray
    distance: np.ndarray
    real_distance: np.ndarray


def compare_haplotypes(
    made: np.ndarray, real: np.ndarray, training: np.ndarray, position_bp: np.ndarray
) -> HaplotypeReport:
    """Compares generated haplotypes with held-out real ones, and with the training ones to find copies.

    real_distance is the distance of the real haplotypes to the training ones: the value expected without
    copying. Raises ValueError where a set has another number of variants or fewer than 2 haplotypes, and
    where all real haplotypes are the same.
    """
    for name, alleles in (("generated", made), ("real", real), ("training", training)):
        if alleles.ndim != 2 or alleles.shape[1] != len(position_bp) or len(alleles) < 2:
            raise ValueError(
                f"{name} haplotypes have shape {alleles.shape}: wanted (2 or more, {len(position_bp)} variants)"
            )
    if (real == real[0]).all():
        raise ValueError(f"the {len(real)} real haplotypes are all the same: wanted 2 or more that differ")
    stats, decomposition = need("scipy.stats"), need("sklearn.decomposition")
    frequency, real_frequency = allele_frequency(made), allele_frequency(real)
    edges = distance_bins(position_bp)
    ld, _ = ld_decay(made, position_bp, edges)
    real_ld, _ = ld_decay(real, position_bp, edges)
    pairs = np.triu_indices(len(position_bp), 1)
    components = min(PCA_COMPONENTS, len(real), len(position_bp))
    pca = decomposition.PCA(components, svd_solver="full").fit(real.astype(np.float64))
    projected, real_projected = pca.transform(made.astype(np.float64)), pca.transform(real.astype(np.float64))
    spread = real_projected.std(0)
    varying = np.nonzero(spread > 1e-9 * max(spread.max(), 1.0))[0].tolist()
    wasserstein = [
        stats.wasserstein_distance(projected[:, i] / spread[i], real_projected[:, i] / spread[i])
        for i in varying
    ]
    distance, real_distance = nearest_distance(made, training), nearest_distance(real, training)
    of_real, of_made = adversarial_accuracy(made, real)
    aats, of_training = (of_real + of_made) / 2, sum(adversarial_accuracy(made, training)) / 2
    scores = {
        "allele_frequency_correlation": _correlation(frequency, real_frequency),
        "allele_frequency_rmse": float(np.sqrt(((frequency - real_frequency) ** 2).mean())),
        "ld_correlation": _correlation(r_squared(made)[pairs], r_squared(real)[pairs]),
        "ld_decay_error": float(np.abs(ld - real_ld).mean()),
        "pca_wasserstein": float(np.mean(wasserstein)),
        "nearest_training_distance": float(np.median(distance)),
        "nearest_training_distance_of_real": float(np.median(real_distance)),
        "copies": float((distance == 0).mean()),
        "copies_of_real": float((real_distance == 0).mean()),
        "distinct": len(np.unique(made, axis=0)) / len(made),
        "aats": aats,
        "aats_real": of_real,
        "aats_made": of_made,
        "privacy_loss": aats - of_training,
    }
    return HaplotypeReport(
        scores,
        frequency,
        real_frequency,
        edges,
        ld,
        real_ld,
        ld_decay_error(made, position_bp, edges),
        ld_decay_error(real, position_bp, edges),
        pca.explained_variance_ratio_,
        projected,
        real_projected,
        distance,
        real_distance,
    )


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; 0 where one of the two does not vary."""
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
