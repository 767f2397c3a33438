"""What the maps of a place share: its bases and positions on their strand, the logo, and the size of the figure."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dnagpt_fast.extras import need
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.selection import Place
from dnagpt_fast.model.marginals import BASE_ORDER
from dnagpt_fast.plot_style import LETTER_COLOURS, ONE_COLUMN, check_ending, new_figure
from dnagpt_fast.vocab import reverse_complement

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def strand_bases(genome: Genome, place: Place) -> str:
    """The bases of a place in its direction."""
    bases = genome.sequence(place.contig, place.start_bp, place.end_bp)
    return reverse_complement(bases) if place.strand == "-" else bases


def position_of(place: Place, i: int) -> int:
    """The 0-based position in the contig of base i of a place, counted in its direction."""
    return place.start_bp + i if place.strand == "+" else place.end_bp - 1 - i


def check_figure(path: str | Path) -> None:
    """Raises ValueError for a name with another ending than .png, .pdf and .svg, ImportError without logomaker."""
    check_ending(path)
    need("logomaker", "tracks")


def place_figure(path: str | Path, length_bp: int, height: float) -> AbstractContextManager["Figure"]:
    """A figure that is wide enough for so many bases; it is written to .png, .pdf or .svg when the block ends."""
    return new_figure(path, min(max(length_bp * 0.075 + 1.2, ONE_COLUMN + 1), 24.0), height)


def draw_logo(axes: Any, bases: str, heights: np.ndarray) -> None:
    """A sequence logo: each base A, C, G, T as high as its value; letters below the line stay upright. NaN is 0."""
    logomaker, pd = need("logomaker", "tracks"), need("pandas", "tracks")
    rows = np.zeros((len(bases), 4))
    for i, base in enumerate(bases):
        if base in BASE_ORDER:
            rows[i, BASE_ORDER.index(base)] = np.nan_to_num(heights[i])
    frame = pd.DataFrame(rows, columns=list(BASE_ORDER))
    logomaker.Logo(frame, ax=axes, color_scheme=LETTER_COLOURS, flip_below=False)
    axes.axhline(0, color="black", linewidth=0.5)


def round_positions(place: Place, labels: int) -> dict[int, str]:
    """About so many round positions of a place, 1-based as genome browsers show them: base of the place, in its
    direction -> label."""
    from matplotlib.ticker import MaxNLocator

    length = place.end_bp - place.start_bp
    round_ones = MaxNLocator(labels, integer=True, steps=[1, 2, 5, 10]).tick_values(
        place.start_bp + 1, place.end_bp
    )
    shown = {}
    for position in map(int, round_ones):
        i = position - 1 - place.start_bp
        if 0 <= i < length:
            shown[i if place.strand == "+" else length - 1 - i] = f"{position:,}"
    return shown


def label_positions(axes: Any, place: Place, *, stranded: bool = True) -> None:
    """The horizontal axis of a figure of a place, whose bases are drawn at 0, 1, ...: round positions in the contig.
    stranded: name the strand."""
    # a label with commas takes about 0.85 inches
    shown = round_positions(place, max(int(axes.figure.get_size_inches()[0] / 0.85) - 1, 2))
    axes.set_xticks(list(shown), list(shown.values()))
    strand = f", strand {place.strand}" if stranded else ""
    axes.set_xlabel(f"{place.contig}, position (1-based){strand}")
