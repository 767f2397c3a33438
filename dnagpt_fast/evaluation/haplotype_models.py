"""Simple models of haplotypes, as rivals of a trained one: independent sites, a Markov chain, copies of the training
haplotypes, and the mosaic of Li and Stephens.

Alleles are uint8 (haplotypes, S).
"""

from dataclasses import dataclass

import numpy as np

PSEUDO = 1.0
RATES_PER_BP = np.logspace(-7, -3, 13)
MISMATCHES = np.logspace(-4, -1.5, 6)


def sample_site_frequencies(training: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, S): each variant drawn independently, with its frequency in the training haplotypes (H, S)."""
    rng = np.random.Generator(np.random.Philox(seed))
    return (rng.random((count, training.shape[1])) < training.mean(0)).astype(np.uint8)


def sample_markov(training: np.ndarray, count: int, order: int = 10, seed: int = 0) -> np.ndarray:
    """uint8 (count, S): each variant drawn given the `order` variants before it, by the frequencies in
    `training` (H, S).

    Where no training haplotype has the same `order` variants there, fewer of them are used.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    sites = training.shape[1]
    made = np.zeros((count, sites), np.uint8)
    for s in range(sites):
        for row in made:
            for back in range(min(order, s), -1, -1):
                match = training[(training[:, s - back : s] == row[s - back : s]).all(1), s]
                if len(match):
                    row[s] = rng.random() < match.mean()
                    break
    return made


def sample_training(training: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, S): training haplotypes drawn with replacement, so every one is a copy."""
    rng = np.random.Generator(np.random.Philox(seed))
    return training[rng.integers(len(training), size=count)]


def site_frequency_loss(training: np.ndarray, haplotypes: np.ndarray) -> np.ndarray:
    """float64 (n,): -log P of each haplotype with independent variants, nats; PSEUDO is added to both counts."""
    share = (training.sum(0) + PSEUDO) / (len(training) + 2 * PSEUDO)
    return -np.log(np.where(haplotypes == 1, share, 1 - share)).sum(1)


def markov_loss(training: np.ndarray, haplotypes: np.ndarray, order: int = 10) -> np.ndarray:
    """float64 (n,): -log P of each haplotype by a chain of this order, nats.

    As in `sample_markov`, fewer variants are used where no training haplotype has the same `order` variants. The
    frequency is drawn towards that of the site as by PSEUDO haplotypes.
    """
    alike = np.zeros((len(haplotypes), len(training)), np.int64)  # equal variants up to here
    loss = np.zeros(len(haplotypes))
    for s in range(training.shape[1]):
        of_site = (training[:, s].sum() + PSEUDO) / (len(training) + 2 * PSEUDO)
        match = alike >= np.minimum(alike.max(1, keepdims=True), order)
        share = (match @ training[:, s].astype(np.float64) + PSEUDO * of_site) / (match.sum(1) + PSEUDO)
        loss -= np.log(np.where(haplotypes[:, s] == 1, share, 1 - share))
        alike = (alike + 1) * (haplotypes[:, s, None] == training[:, s])
    return loss


@dataclass(frozen=True)
class Mosaic:
    """Li and Stephens (2003): a haplotype copies a training haplotype and switches to a random one on its way.

    rate_per_bp  of a switch: over d bases it happens with probability 1 - exp(-rate_per_bp d)
    mismatch     probability that a copied variant has the other allele
    """

    training: np.ndarray
    position_bp: np.ndarray
    rate_per_bp: float
    mismatch: float

    def _switches(self) -> np.ndarray:
        """float64 (S,): probability of a switch before each variant; 1 before the first."""
        gaps = np.diff(self.position_bp)
        return np.concatenate([[1.0], 1 - np.exp(-self.rate_per_bp * gaps)])

    def loss(self, haplotypes: np.ndarray) -> np.ndarray:
        """float64 (n,): -log P of each haplotype, nats, by the forward algorithm over all copied haplotypes."""
        count = len(self.training)
        share = np.full((len(haplotypes), count), 1 / count)
        loss = np.zeros(len(haplotypes))
        for s, switch in enumerate(self._switches().tolist()):
            equal = haplotypes[:, s, None] == self.training[:, s]
            share = (1 - switch) * share + switch / count
            share *= np.where(equal, 1 - self.mismatch, self.mismatch)
            total = share.sum(1, keepdims=True)
            share /= total
            loss -= np.log(total[:, 0])
        return loss

    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """uint8 (count, S)"""
        rng = np.random.Generator(np.random.Philox(seed))
        made = np.empty((count, len(self.position_bp)), np.uint8)
        at = np.zeros(count, np.int64)
        for s, switch in enumerate(self._switches().tolist()):
            at = np.where(rng.random(count) < switch, rng.integers(len(self.training), size=count), at)
            made[:, s] = self.training[at, s] ^ (rng.random(count) < self.mismatch)
        return made


def fit_mosaic(training: np.ndarray, validation: np.ndarray, position_bp: np.ndarray) -> Mosaic:
    """The rate, then the mismatch, then the rate again, of RATES_PER_BP and MISMATCHES, with the lowest loss on the
    validation haplotypes."""
    rate, mismatch = float(RATES_PER_BP[6]), float(MISMATCHES[2])

    def loss(rate: float, mismatch: float) -> float:
        return float(Mosaic(training, position_bp, rate, mismatch).loss(validation).mean())

    rate = min(RATES_PER_BP.tolist(), key=lambda value: loss(value, mismatch))
    mismatch = min(MISMATCHES.tolist(), key=lambda value: loss(rate, value))
    rate = min(RATES_PER_BP.tolist(), key=lambda value: loss(value, mismatch))
    return Mosaic(training, position_bp, rate, mismatch)
