"""Comparison of generated sequences with real ones: k-mer spectra and GC content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dnagpt_fast.evaluation.baselines import kmer_counts
from dnagpt_fast.output_files import whole

SPECTRUM_K = 4


@dataclass(frozen=True)
class Likeness:
    """Generated sequences compared with real ones.

    correlation  Pearson's correlation of the logarithms of the 4-mers' shares
    divergence   Jensen-Shannon divergence of the 4-mers' shares, in nats: 0 if equal, ln 2 if no 4-mer is
                 shared
    gc_*         mean and standard deviation of the GC share of a sequence
    """

    correlation: float
    divergence: float
    gc_real: float
    gc_made: float
    gc_sd_real: float
    gc_sd_made: float


def spectrum(sequences: Sequence[str], k: int = SPECTRUM_K) -> np.ndarray:
    """float64 (4^k,): share of each k-mer in all sequences together, with 0.5 added to each count. Raises
    ValueError without sequences."""
    if not sequences:
        raise ValueError("no sequence to take a spectrum of")
    counts = np.full(4**k, 0.5)
    for text in sequences:
        places = sum(1 for i in range(len(text) - k + 1) if "N" not in text[i : i + k])
        counts += kmer_counts([text], k)[0].astype(np.float64) * places
    return counts / counts.sum()


def gc_shares(sequences: Sequence[str]) -> np.ndarray:
    """float64 (n,): share of G and C among the known bases of each sequence; sequences without known bases
    are left out."""
    known = [(text.count("G") + text.count("C"), len(text) - text.count("N")) for text in sequences]
    return np.array([gc / bases for gc, bases in known if bases])


def likeness(made: Sequence[str], real: Sequence[str]) -> Likeness:
    """Compares the two sets. Raises ValueError where one of them is empty."""
    p, q = spectrum(made), spectrum(real)
    middle = (p + q) / 2
    divergence = float((p * np.log(p / middle) + q * np.log(q / middle)).sum() / 2)
    gc_made, gc_real = gc_shares(made), gc_shares(real)
    return Likeness(
        correlation=float(np.corrcoef(np.log(p), np.log(q))[0, 1]),
        divergence=divergence,
        gc_real=float(gc_real.mean()),
        gc_made=float(gc_made.mean()),
        gc_sd_real=float(gc_real.std()),
        gc_sd_made=float(gc_made.std()),
    )


def plot_spectra(
    path: str | Path, made: Mapping[str, Sequence[str]], real: Mapping[str, Sequence[str]]
) -> Path:
    """One column for each name: 4-mer shares, real against generated, and the GC shares of both."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(made), 5.2), layout="constrained")
    axes = figure.subplots(2, len(made), squeeze=False)
    for column, (name, texts) in zip(axes.T, made.items(), strict=True):
        p, q = spectrum(texts), spectrum(real[name])
        found = likeness(texts, real[name])
        ends = [min(p.min(), q.min()), max(p.max(), q.max())]
        column[0].plot(ends, ends, color="gray", linewidth=0.8)
        column[0].scatter(q, p, s=4)
        column[0].set(xscale="log", yscale="log", title=f"{name}\nr = {found.correlation:.3f}")
        column[0].set(xlabel="4-mer share, real", ylabel="generated")
        bins = np.linspace(0.2, 0.75, 34).tolist()
        for label, some in (("real", real[name]), ("generated", texts)):
            column[1].hist(gc_shares(some), bins=bins, density=True, histtype="step", label=label)
        column[1].set(xlabel="GC share", yticks=[])
        column[1].legend(fontsize=7)
    path = Path(path)
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=90)
    return path
