"""A picture of the tracks of one range, read from their BigWig files.

Log-likelihood and entropy are drawn base by base, in long ranges in grey with a running mean in colour; the dashed line
is a model that knows nothing: log 1/4, or 2 bits. In short ranges the probabilities of A, C, G, T are stacked. Bases
without a value are gaps.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnagpt_fast.extras import need
from dnagpt_fast.genome.selection import Place
from dnagpt_fast.model.marginals import BASE_ORDER
from dnagpt_fast.plot_style import (
    BLUE,
    LETTER_COLOURS,
    PALE,
    RED,
    REFERENCE,
    TWO_COLUMNS,
    check_ending,
    new_figure,
)
from dnagpt_fast.tracks.place_maps import label_positions

MOST_BP = 20_000
MOST_STACKED_BP = 300
"""In longer ranges the probabilities of single bases could not be read."""
MEAN_OVER = 50
"""A fiftieth of the range is averaged for the line in colour."""
LINES = {
    "log_likelihood": ("log-likelihood\n(nats per base)", np.log(1 / 4), BLUE),
    "entropy": ("entropy\n(bits per base)", 2.0, RED),
}


def check_track_figure(path: str | Path, places: Sequence[Place]) -> None:
    """Raises ValueError for an ending other than .png, .pdf and .svg, and for other than one range of up to MOST_BP."""
    check_ending(path)
    if len(places) != 1:
        raise ValueError(f"{len(places)} ranges: a figure shows one")
    length = places[0].end_bp - places[0].start_bp
    if not 1 <= length <= MOST_BP:
        raise ValueError(f"{places[0].name}: {length:,} bp: a figure shows 1..{MOST_BP:,}")


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of the known values among the `width` places around each place; NaN where none is known."""
    known = np.isfinite(values)
    ones = np.ones(width)
    total = np.convolve(np.where(known, values, 0.0), ones, "same")[: len(values)]
    count = np.convolve(known.astype(float), ones, "same")[: len(values)]
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0.5)


def plot_tracks(path: str | Path, folder: Path, place: Place) -> None:
    """Draws the tracks in a folder of `write_tracks` as .png, .pdf or .svg. Raises ValueError as
    `check_track_figure`, ImportError without pyBigWig."""
    check_track_figure(path, [place])
    length = place.end_bp - place.start_bp
    shown = [track for track in LINES if (folder / f"{track}.bw").exists()]
    bases = all((folder / f"{base}.bw").exists() for base in BASE_ORDER)
    bases &= length <= MOST_STACKED_BP or not shown
    rows = len(shown) + bases
    x = np.arange(length)
    width = max(length // MEAN_OVER, 1)
    with new_figure(path, TWO_COLUMNS, 0.55 + 1.15 * rows) as figure:
        panels: list[Any] = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
        for axes, track in zip(panels, shown, strict=False):
            name, unknowing, colour = LINES[track]
            values = _values(folder, track, place)
            if length <= MOST_STACKED_BP:
                axes.plot(x, values, color=colour, linewidth=0.9, drawstyle="steps-mid", label="each base")
            else:
                axes.plot(x, values, color=PALE, linewidth=0.4, label="each base")
                mean = running_mean(values, width)
                axes.plot(x, mean, color=colour, linewidth=1.2, label=f"mean of {width} bases")
            axes.axhline(unknowing, **REFERENCE, label=f"knows nothing ({unknowing:.3g})")
            axes.set_ylabel(name)
            _legend_beside(axes)
        if bases:
            axes = panels[-1]
            stacked = np.nan_to_num([_values(folder, base, place) for base in BASE_ORDER])
            axes.stackplot(
                x,
                stacked,
                colors=[LETTER_COLOURS[base] for base in BASE_ORDER],
                labels=list(BASE_ORDER),
                linewidth=0,
                step="mid",
            )
            axes.set_ylim(0, 1)
            axes.set_ylabel("P(base)")
            _legend_beside(axes)
        panels[-1].set_xlim(-0.5, length - 0.5)
        label_positions(panels[-1], place, stranded=False)


def _legend_beside(axes: Any) -> None:
    """Right of the panel, where it hides nothing."""
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), borderaxespad=0.3)


def _values(folder: Path, track: str, place: Place) -> np.ndarray:
    with need("pyBigWig", "tracks").open(str(folder / f"{track}.bw")) as file:
        return np.asarray(file.values(place.contig, place.start_bp, place.end_bp), np.float64)
