"""The picture of a range's tracks: what it draws is what the BigWig files hold, at round positions of the contig."""

import numpy as np
import pyBigWig
import pytest
from matplotlib.figure import Figure

from dnagpt_fast import Genome, KmerTokenizer
from dnagpt_fast.genome.selection import Place
from dnagpt_fast.model.base_tracks import BaseTracks
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.tracks import track_plot
from dnagpt_fast.tracks.bigwig import write_tracks
from dnagpt_fast.tracks.place_maps import label_positions
from dnagpt_fast.tracks.track_plot import check_track_figure, plot_tracks, running_mean
from tests.tiny import load_tiny
from tests.variants.cohort import write_genome

SHORT, LONG = Place("chr1:430-470", "chr1", 430, 470), Place("chr20:10-420", "chr20", 10, 420)


@pytest.fixture
def folder(tmp_path):
    tracks = BaseTracks(Inference(load_tiny("tiny_bias").model()), KmerTokenizer(3))
    with Genome.open(write_genome(tmp_path)) as genome:
        write_tracks(tracks, genome, [(0, *SHORT[2:4]), (1, *LONG[2:4])], tmp_path / "tracks")
    return tmp_path / "tracks"


def drawn(folder, tmp_path, place, monkeypatch):
    """The figure's panels."""
    kept = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **b: (kept.append(self), save(self, *a, **b))[1])
    plot_tracks(tmp_path / "x.svg", folder, place)
    assert (tmp_path / "x.svg").read_text().startswith("<?xml")
    return kept[0].axes


def values(folder, track, place):
    with pyBigWig.open(str(folder / f"{track}.bw")) as file:
        return np.array(file.values(*place[1:4]))


def test_a_short_range_has_all_tracks(folder, tmp_path, monkeypatch):
    likelihood, entropy, bases = drawn(folder, tmp_path, SHORT, monkeypatch)
    np.testing.assert_array_equal(likelihood.lines[0].get_ydata(), values(folder, "log_likelihood", SHORT))
    np.testing.assert_array_equal(entropy.lines[0].get_ydata(), values(folder, "entropy", SHORT))
    assert likelihood.lines[1].get_ydata()[0] == pytest.approx(np.log(0.25))
    tops = [collection.get_paths()[0].vertices[:, 1].max() for collection in bases.collections]
    wanted = np.cumsum([values(folder, base, SHORT) for base in "ACGT"], axis=0).max(1)
    np.testing.assert_allclose(tops, wanted, rtol=1e-5)
    assert [text.get_text() for text in bases.get_xticklabels()] == ["440", "450", "460", "470"]
    assert list(bases.get_xticks()) == [9, 19, 29, 39]


def test_a_long_range_has_running_means_and_gaps(folder, tmp_path, monkeypatch):
    likelihood, entropy = drawn(folder, tmp_path, LONG, monkeypatch)
    grey, mean = likelihood.lines[:2]
    known = values(folder, "log_likelihood", LONG)
    np.testing.assert_array_equal(grey.get_ydata(), known)
    assert np.isnan(known[290:330]).all()
    np.testing.assert_array_equal(mean.get_ydata(), running_mean(known, 410 // 50))
    assert np.isnan(mean.get_ydata()[296:324]).all()
    assert "bits" in entropy.get_ylabel()


def test_running_means_leave_out_what_is_unknown():
    found = running_mean(np.array([1.0, 3.0, np.nan, 5.0, np.nan, np.nan, np.nan]), 3)
    np.testing.assert_allclose(found, [2.0, 2.0, 4.0, 5.0, 5.0, np.nan, np.nan])


def test_positions_of_the_reverse_strand_count_down():
    axes = Figure(figsize=(5, 2)).subplots()
    label_positions(axes, Place("x", "chr1", 430, 470, "-"))
    at = dict(zip((t.get_text() for t in axes.get_xticklabels()), axes.get_xticks(), strict=True))
    # base 0 is position 470 (1-based)
    assert at == {"440": 30, "450": 20, "460": 10, "470": 0}
    assert axes.get_xlabel() == "chr1, position (1-based), strand -"


@pytest.mark.parametrize(
    ("path", "places", "message"),
    [
        ("x.gif", [SHORT], "ends in .png, .pdf, .svg"),
        ("x.svg", [SHORT, LONG], "2 ranges: a figure shows one"),
        (
            "x.svg",
            [LONG._replace(end_bp=LONG.start_bp + track_plot.MOST_BP + 1)],
            "20,001 bp: a figure shows",
        ),
    ],
)
def test_what_cannot_be_drawn_is_named(path, places, message):
    with pytest.raises(ValueError, match=message):
        check_track_figure(path, places)
