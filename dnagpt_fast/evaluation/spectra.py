"""Comparison of generated sequences with real ones: k-mer spectra and GC content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dnagpt_fast.evaluation.baselines import kmer_counts
from dnagpt_fast.plot_style import BLACK, BLUE, ONE_COLUMN, REFERENCE, new_figure

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
    path: str | Path,
    made: Mapping[str, Sequence[str]],
    real: Mapping[str, Sequence[str]],
    *,
    beside: Sequence[str] = (),
) -> Path:
    """One column for each name: 4-mer shares, real against generated, and the GC shares of both."""
    columns = len(made)
    with new_figure(path, max(ONE_COLUMN, 0.5 + 1.2 * columns), 3.9, beside=beside) as figure:
        axes = figure.subplots(2, columns, squeeze=False, sharex="row", sharey="row")
        spectra = {name: (spectrum(texts), spectrum(real[name])) for name, texts in made.items()}
        shares = {name: (gc_shares(texts), gc_shares(real[name])) for name, texts in made.items()}
        all_shares = np.concatenate([one for pair in spectra.values() for one in pair])
        ends = [all_shares.min() / 1.3, all_shares.max() * 1.3]
        all_gc = np.concatenate([one for pair in shares.values() for one in pair])
        bins = np.linspace(all_gc.min() - 0.01, all_gc.max() + 0.01, 34).tolist()
        for (upper, lower), name in zip(axes.T, made, strict=True):
            p, q = spectra[name]
            upper.plot(ends, ends, **REFERENCE)
            upper.scatter(q, p, s=5, color=BLUE, alpha=0.6, linewidth=0)
            upper.set(xscale="log", yscale="log", xlim=ends, ylim=ends, box_aspect=1)
            found = likeness(made[name], real[name])
            upper.set_title(f"{name}\nr = {found.correlation:.3f}, n = {len(made[name]):,}")
            gc_made, gc_real = shares[name]
            for label, some, colour, fill in (
                ("real", gc_real, BLACK, "stepfilled"), ("generated", gc_made, BLUE, "step")
            ):  # fmt: skip
                lower.hist(
                    some, bins, weights=np.full(len(some), 1 / len(some)), histtype=fill, color=colour,
                    alpha=0.3 if fill == "stepfilled" else 1.0, label=label,
                )  # fmt: skip
            lower.set_title(f"mean {gc_real.mean():.3f} real,\n{gc_made.mean():.3f} generated", fontsize=6.5)
            lower.set(box_aspect=0.8)
        axes[0, 0].set_ylabel(f"{SPECTRUM_K}-mer share, generated")
        axes[1, 0].set_ylabel("share of sequences")
        figure.supxlabel("GC share of a sequence", fontsize=8)
        for upper in axes[0]:
            upper.set_xlabel(f"{SPECTRUM_K}-mer share, real")
        handles, labels = axes[1, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return Path(path)
