"""Figures of places: the same figure gives the same bytes."""

import pytest

from dnagpt_fast.tracks.place_maps import FIGURES, save_figure

matplotlib = pytest.importorskip("matplotlib")


@pytest.mark.parametrize("ending", FIGURES)
def test_the_same_figure_gives_the_same_bytes(ending, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def write(name, epoch):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)  # matplotlib's clock
        figure = Figure()
        axes = figure.subplots()
        axes.imshow([[0.0, 1.0], [2.0, 3.0]])
        axes.set_title("contig:1-2")
        save_figure(tmp_path / name, figure)
        return (tmp_path / name).read_bytes()

    assert write(f"a{ending}", "1000000000") == write(f"b{ending}", "1500000000")
