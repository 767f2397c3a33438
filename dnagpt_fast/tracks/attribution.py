"""Attributions of a fine-tuned model's answer to the bases of a sequence, as a table and as a sequence logo.

The answer's gradient g at a k-mer's embedding says, to first order, what another k-mer there would change. A base's
attribution is (E[w] - mean of E[w'] over the four bases at its place) . g, where E is the embedding table and w the
k-mer that holds the base: what the base adds to the answer beside the mean of the four.

gradient    g at the sequence
integrated  g averaged along the straight line from the baseline, the mean embedding of all k-mers, to the sequence
            (Integrated Gradients, Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365)
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dnagpt_fast.finetune.answer import Answer, EmbeddingGradients
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.genome_range import GenomeRange
from dnagpt_fast.genome.selection import Place, place_of
from dnagpt_fast.model.marginals import BASE_ORDER
from dnagpt_fast.output_files import TextFile
from dnagpt_fast.tracks.place_maps import (
    check_figure,
    draw_logo,
    label_positions,
    place_figure,
    position_of,
    strand_bases,
)

METHODS = ("gradient", "integrated")
STEPS = 64
"""Points of the line for `integrated`."""


@dataclass(frozen=True)
class Attribution:
    """float64 (length_bp,), in the direction of the place; NaN for unknown bases, and for a tail that is shorter than
    the tokens of a fixed vocabulary.

    answer    the model's answer for the sequence
    baseline  integrated: its answer where every k-mer's embedding is the mean of all
    gap       integrated: how far the sum of the tokens' attributions is from answer - baseline; 0 in the limit of many
              steps (completeness)
    """

    place: Place
    bases: str
    values: np.ndarray
    method: str
    quantity: str
    answer: float
    baseline: float | None = None
    gap: float | None = None


def points(method: str, steps: int) -> int:
    """At how many points a gradient is taken: those of the line and both its ends."""
    return steps + 2 if method == "integrated" else 1


def attribute(
    answer: Answer,
    genome: Genome,
    place: Place | GenomeRange | str,
    *,
    method: str = "integrated",
    steps: int = STEPS,
    progress: Callable[[int], object] = lambda points: None,
) -> Attribution:
    """Of a place that the model reads as one sequence, in its direction.

    steps     points of the line for `integrated`, at the middles of equal parts
    progress  called with the number of points done since its last call, of `points(method, steps)`
    Raises ValueError for another method, fewer than 1 step, and as `Answer.gradients`.
    """
    if method not in METHODS:
        raise ValueError(f"method = {method!r}: wanted {' or '.join(METHODS)}")
    if steps < 1:
        raise ValueError(f"steps = {steps}: wanted 1 or more")
    place = place_of(genome, place)
    bases = strand_bases(genome, place)
    if method == "gradient":
        found = answer.gradients(bases, [1.0], name=place.name, progress=progress)
        values = _by_base(answer, found, found.gradients[0], len(bases))
        return Attribution(place, bases, values, method, answer.name, float(found.answers[0]))
    middles = [(i + 0.5) / steps for i in range(steps)]
    found = answer.gradients(bases, [*middles, 0.0, 1.0], name=place.name, progress=progress)
    mean = found.gradients[:steps].double().mean(0)
    baseline, whole_answer = found.answers[-2:]
    total = float(((found.embeddings - found.baseline).double() * mean).sum())
    return Attribution(
        place,
        bases,
        _by_base(answer, found, mean, len(bases)),
        method,
        answer.name,
        float(whole_answer),
        float(baseline),
        total - float(whole_answer - baseline),
    )


def _by_base(answer: Answer, found: EmbeddingGradients, gradient: torch.Tensor, length_bp: int) -> np.ndarray:
    values, at = np.full(length_bp, np.nan), 0
    for piece, embedding, along in zip(found.pieces, found.embeddings, gradient, strict=True):
        for i, base in enumerate(piece):
            if base in BASE_ORDER:
                four = [answer.embedding_of(piece[:i] + other + piece[i + 1 :]) for other in BASE_ORDER]
                beside = embedding.double() - torch.stack(four).double().mean(0)
                values[at] = float(beside @ along.double())
            at += 1
    return values


def write_table(path: str | Path, found: Attribution) -> None:
    """contig, position (0-based), strand, base, attribution; bases as read on the strand."""
    place = found.place
    with TextFile(path) as table:
        table.write("\t".join(("contig", "position", "strand", "base", "attribution")))
        for i, (base, value) in enumerate(zip(found.bases, found.values, strict=True)):
            position = position_of(place, i)
            if np.isfinite(value):
                table.write("\t".join(map(str, (place.contig, position, place.strand, base, f"{value:.6g}"))))


def plot(path: str | Path, found: Attribution) -> None:
    """A logo as .png, .pdf or .svg: each base as high as its attribution, below the line where it is negative. Raises
    ValueError for another ending, ImportError without logomaker."""
    check_figure(path)
    if not np.isfinite(found.values).any():
        raise ValueError(f"{found.place.name}: no base of it has an attribution, so there is nothing to draw")
    with place_figure(path, len(found.bases), 1.8) as figure:
        axes = figure.subplots()
        draw_logo(axes, found.bases, found.values)
        axes.set_ylabel(f"attribution to\n{found.quantity}")
        axes.set_title(f"{found.method}, answer {found.answer:.3g}", loc="left")
        label_positions(axes, found.place)
