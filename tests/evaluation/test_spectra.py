"""Spectra by counting; sequences of one source are alike, sequences of two are not."""

import math

import numpy as np
import pytest

from dnagpt_fast.evaluation.baselines import kmer_names
from dnagpt_fast.evaluation.spectra import gc_shares, likeness, plot_spectra, spectrum
from tests.genome.synthetic import random_letters


def test_a_spectrum_counts_the_kmers_of_all_sequences():
    found = dict(zip(kmer_names(2), spectrum(["ACAC", "ANCA"], k=2) * (4 + 16 * 0.5), strict=True))
    assert found["AC"] == pytest.approx(2.5)
    assert found["CA"] == pytest.approx(2.5)  # the N of the second sequence removes two 2-mers
    assert found["GG"] == pytest.approx(0.5)


def test_gc_of_known_bases():
    assert gc_shares(["GGAT", "NNGN", "NN"]).tolist() == [0.5, 1.0]


def test_the_same_source_is_alike_and_another_is_not():
    draw = np.random.default_rng(0)
    one, other = ([random_letters(draw, 3000) for _ in range(8)] for _ in range(2))
    rich = ["".join(draw.choice(list("ACGT"), 3000, p=[0.15, 0.35, 0.35, 0.15])) for _ in range(8)]
    assert likeness(one, one).divergence == pytest.approx(0, abs=1e-12)
    assert likeness(one, one).correlation == pytest.approx(1)
    assert likeness(one, other).divergence < 0.01 < likeness(one, rich).divergence < math.log(2)
    assert likeness(one, rich).gc_real == pytest.approx(0.7, abs=0.02)
    assert likeness(one, rich).gc_made == pytest.approx(0.5, abs=0.02)
    assert likeness(["A" * 3000], ["C" * 3000]).divergence > 0.9 * math.log(2) - 0.1


def test_nothing_has_no_spectrum():
    with pytest.raises(ValueError, match="no sequence"):
        likeness([], ["ACGT"])


def test_the_figure_is_drawn(tmp_path):
    texts = {name: [random_letters(np.random.default_rng(1), 500)] for name in ("human", "yeast")}
    assert plot_spectra(tmp_path / "x.png", texts, texts).read_bytes()[:4] == b"\x89PNG"
