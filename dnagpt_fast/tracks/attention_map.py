"""Attention weights of a place as a file: an array with coordinates, or a heat map with positions of the genome."""

from pathlib import Path

import numpy as np

from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.selection import Place
from dnagpt_fast.model.attention_maps import AttentionMaps, attention_weights
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.output_files import whole
from dnagpt_fast.plot_style import FORMATS, MIDDLE, SEQUENTIAL, new_figure
from dnagpt_fast.tracks.place_maps import round_positions

ENDINGS = (*FORMATS, ".npz")
POSITIONS = 5
"""Labels of an axis, about."""


def attention_of_place(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    genome: Genome,
    place: Place,
    *,
    layer: int | None = None,
    prefix: str = "<R>",
) -> AttentionMaps:
    """`model.attention_maps.attention_weights` of a place, in its direction. Raises ValueError that names the place."""
    try:
        sequence = genome.range(place.contig, place.start_bp, place.end_bp, place.strand)
        return attention_weights(model, tokenizer, sequence, layer=layer, prefix=prefix)
    except ValueError as error:
        raise ValueError(f"{place.name}: {error}") from error


def write_arrays(path: str | Path, found: AttentionMaps, place: Place) -> None:
    """.npz: `weights` (layers, heads, T, T), `layers`, `tokens`, and for each token `start_bp` and `end_bp` in the
    contig (0-based, half-open; -1 for the prefix), with `contig` and `strand`."""
    inside = found.start_bp >= 0
    first, last = (
        (place.start_bp + found.start_bp, place.start_bp + found.end_bp)
        if place.strand == "+"
        else (place.end_bp - found.end_bp, place.end_bp - found.start_bp)
    )
    with whole(path) as temporary:
        np.savez_compressed(
            temporary,
            weights=found.weights,
            layers=np.array(found.layers),
            tokens=np.array(found.tokens),
            start_bp=np.where(inside, first, -1),
            end_bp=np.where(inside, last, -1),
            contig=np.array(place.contig),
            strand=np.array(place.strand),
        )


def chosen_head(found: AttentionMaps, head: int | None) -> np.ndarray:
    """(T, T) of the last layer in `found`: one head, or the mean of all. Raises ValueError for a head out of range."""
    weights = found.weights[-1]
    if head is None:
        return weights.mean(0)
    if not 0 <= head < len(weights):
        raise ValueError(f"head = {head}: wanted 0..{len(weights) - 1}")
    return weights[head]


def plot(path: str | Path, found: AttentionMaps, place: Place, head: int | None = None) -> None:
    """A heat map as .png, .pdf or .svg: queries downwards, keys to the right, both with positions in the contig.

    The colours (cividis) suit colour-blind readers. Their scale is that of square roots, for most weights are small.
    Later tokens, which have no weight, are white. Raises ValueError for another ending and a head out of range.
    """
    from matplotlib.colors import PowerNorm

    weights = chosen_head(found, head)
    later = np.triu(np.ones_like(weights, bool), 1)
    # token t is drawn from t - 0.5 to t + 0.5, so a base is drawn at its share of that
    bp = int(found.end_bp[found.n_prefix] - found.start_bp[found.n_prefix])
    ticks = {float(i): token for i, token in enumerate(found.tokens[: found.n_prefix])}
    for i, label in round_positions(place, POSITIONS).items():
        at = found.n_prefix - 0.5 + (i + 0.5) / bp
        if at > 0.08 * len(found.tokens) or not found.n_prefix:  # nearer ones would overlap the prefix
            ticks[at] = label
    with new_figure(path, MIDDLE, 4.0) as figure:
        axes = figure.subplots()
        image = axes.imshow(
            np.ma.masked_array(weights, later),
            cmap=SEQUENTIAL,
            norm=PowerNorm(0.5, 0, weights.max()),
            interpolation="nearest",
        )
        axes.set_xticks(list(ticks), list(ticks.values()), rotation=30, ha="right", rotation_mode="anchor")
        axes.set_yticks(list(ticks), list(ticks.values()))
        axes.set_xlabel(f"key: {place.contig}, position (1-based), strand {place.strand}")
        axes.set_ylabel("query, position")
        axes.set_title(
            f"layer {found.layers[-1]}, {'mean of all heads' if head is None else f'head {head}'}; "
            f"{bp} bp per token"
        )
        figure.colorbar(image, ax=axes, label="attention weight (square-root scale)", shrink=0.85, aspect=30)
