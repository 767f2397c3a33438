"""The style of all figures: sizes, fonts and colours, and files that are the same bytes for the same figure."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnagpt_fast.output_files import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
VECTOR = ".svg"
"""The form that is written beside a .png in the folder of a run: for papers, at any size."""
ONE_COLUMN, MIDDLE, TWO_COLUMNS = 3.5, 4.7, 7.2
"""Widths of figures in inches: 89, 120 and 183 mm, as most journals print them. Text is then 7 to 9 points."""

# Okabe and Ito 2008, https://jfly.uni-koeln.de/color/: colour-blind readers can distinguish them.
BLUE, RED, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
BLACK, GREY, PALE = "#000000", "#707070", "#c0c0c0"
CYCLE = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
LETTER_COLOURS = {"A": GREEN, "C": BLUE, "G": ORANGE, "T": RED}
DIVERGING, SEQUENTIAL, SHADES = "PuOr", "cividis", "Blues"
"""Colour maps of signed values, of values from 0, and of counts with numbers on them."""
REFERENCE: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 0.8, "zorder": 1}
"""The line of chance, or of a model that knows nothing."""
MANY = 5000
"""So many points and more are drawn as pixels inside vector files, which would otherwise open slowly."""

BELOW_INCHES = 0.48
"""Of tick labels and the axis label together."""

_SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same text on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.borderpad": 0.3,
    "legend.handlelength": 1.6,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": PALE,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.hashsalt": "dnagpt_fast",  # the names of shapes in the file are not random
    "agg.path.chunksize": 10_000,
}


@contextmanager
def styled() -> Iterator[None]:
    """Inside the block matplotlib has its defaults and the style of the package, whatever the user's settings are."""
    from cycler import cycler
    from matplotlib import style

    # more than six lines: the colours again, dashed
    cycle = cycler(linestyle=["-", "--", ":"]) * cycler(color=list(CYCLE))
    with style.context(["default", {**_SETTINGS, "axes.prop_cycle": cycle}]):
        yield


@contextmanager
def new_figure(
    path: str | Path, width: float, height: float, *, beside: Sequence[str] = ()
) -> Iterator["Figure"]:
    """A figure of so many inches, drawn inside the block in the package's style, and written when the block ends.

    path    ends in .png, .pdf or .svg
    beside  further endings: the same figure is written in these forms beside `path`
    Raises ValueError for another ending; no file is written if the block raises.
    """
    # Imported late: the import takes half a second, which would delay the first step of a run.
    from matplotlib.figure import Figure

    check_ending(path)
    with styled():
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        save_figure(path, figure)
        for ending in beside:
            figure.set_layout_engine("none")  # as it was laid out for the first file
            save_figure(Path(path).with_suffix(ending), figure)


def save_figure(path: str | Path, figure: "Figure") -> None:
    """Writes a figure as .png, .pdf or .svg: the same figure, the same bytes. Raises ValueError for another ending."""
    check_ending(path)
    form = Path(path).suffix[1:]
    # the time of writing is left out
    no_time = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
    with styled(), whole(path) as temporary:
        figure.savefig(temporary, format=form, metadata=no_time)


def check_ending(path: str | Path, endings: Sequence[str] = FORMATS) -> None:
    """Raises ValueError for a name with another ending."""
    if Path(path).suffix not in endings:
        raise ValueError(f"{path}: wanted a name that ends in {', '.join(endings)}")


def legend_below(axes: "Axes", columns: int = 1) -> None:
    """A legend under the label of the horizontal axis, where it hides nothing; faint dots are strong in it."""
    from matplotlib.collections import PathCollection
    from matplotlib.transforms import ScaledTranslation

    figure = axes.get_figure(root=True)
    assert figure is not None
    below = axes.transAxes + ScaledTranslation(0, -BELOW_INCHES, figure.dpi_scale_trans)
    legend = axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=columns, borderaxespad=0
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_alpha(1)
            handle.set_sizes([14])


def count_axis(axis: "Axis") -> None:
    """Whole numbers with commas as labels."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def letter_panels(panels: Sequence["Axes"]) -> None:
    """a, b, c ... above the left end of each panel, as papers refer to them."""
    for letter, axes in zip("abcdefghijklmnop", panels, strict=False):
        axes.set_title(letter, loc="left", fontweight="bold")
