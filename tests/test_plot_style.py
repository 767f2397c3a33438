"""The style of the figures: the same figure gives the same bytes, whatever the user's settings are."""

import os
import subprocess
import sys

import matplotlib
import pytest
from matplotlib.figure import Figure

from dnagpt_fast.plot_style import BLUE, FORMATS, count_axis, legend_below, new_figure, save_figure


@pytest.mark.parametrize("ending", FORMATS)
def test_the_same_figure_gives_the_same_bytes(ending, tmp_path, monkeypatch):
    def write(name, epoch):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)  # matplotlib's clock
        figure = Figure()
        axes = figure.subplots()
        axes.imshow([[0.0, 1.0], [2.0, 3.0]])
        axes.set_title("contig:1-2")
        save_figure(tmp_path / name, figure)
        return (tmp_path / name).read_bytes()

    assert write(f"a{ending}", "1000000000") == write(f"b{ending}", "1500000000")


def test_settings_of_the_user_change_nothing(tmp_path):
    def write(name):
        with new_figure(tmp_path / name, 3, 2) as figure:
            figure.subplots().plot([1, 2], [3, 4])
        return (tmp_path / name).read_bytes()

    plain = write("a.png")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 20, "savefig.dpi": 31}):
        assert write("b.png") == plain
        assert matplotlib.rcParams["font.size"] == 20
    assert matplotlib.rcParams["font.size"] != 8


SCRIPT = """
import sys
from dnagpt_fast.plot_style import new_figure
with new_figure(sys.argv[1], 2, 2, beside=(".svg", ".pdf")) as figure:
    figure.subplots().plot([1, 2], [3, 4], label="ρ = 0.5")
"""


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(tmp_path):
    for name, seed in (("a", "1"), ("b", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", SCRIPT, tmp_path / f"{name}.png"], env=environment, check=True)
    for ending in FORMATS:
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_forms_beside_have_the_same_layout_and_text(tmp_path):
    with new_figure(tmp_path / "x.png", 3, 2, beside=(".svg",)) as figure:
        axes = figure.subplots()
        axes.scatter([1000, 4000], [1, 2], alpha=0.1, color=BLUE, label="faint dots")
        axes.set_xlabel("steps")
        count_axis(axes.xaxis)
        legend_below(axes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.png", "x.svg"]
    text = (tmp_path / "x.svg").read_text()
    assert "faint dots" in text
    assert "<!-- 2,000 -->" in text
    handle = axes.get_legend().legend_handles[0]
    assert handle.get_alpha() == 1
    label, legend = axes.xaxis.label.get_window_extent(), axes.get_legend().get_window_extent()
    assert legend.y1 <= label.y0


def test_nothing_is_written_for_another_ending_or_after_an_error(tmp_path):
    with (
        pytest.raises(ValueError, match=r"x.gif: wanted a name that ends in .png, .pdf, .svg"),
        new_figure(tmp_path / "x.gif", 1, 1),
    ):
        pass
    with pytest.raises(KeyError), new_figure(tmp_path / "x.png", 1, 1):
        raise KeyError
    assert not list(tmp_path.iterdir())
