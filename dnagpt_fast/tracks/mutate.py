"""Saturation mutagenesis: scores of all single-base substitutions of a region, as a table and as a figure.

A score of a pre-trained model is the log-ratio of the mutated sequence to the reference (model/alleles.py), or its
conditional form. A score of a fine-tuned model is its answer for the mutated sequence minus its answer for the
reference. The figure shows a sequence logo above a heat map: the height of a reference base is the mean loss over its
three substitutions, so that bases which the model expects are tall. The colours of the heat map are diverging, centred
on 0 and suitable for colour-blind readers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from dnagpt_fast.finetune.answer import Answer
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.genome_range import GenomeRange
from dnagpt_fast.genome.selection import Place, place_of
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.marginals import BASE_ORDER
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.output_files import TextFile
from dnagpt_fast.plot_style import BLACK, DIVERGING, PALE
from dnagpt_fast.tracks.place_maps import (
    check_figure,
    draw_logo,
    label_positions,
    place_figure,
    position_of,
    strand_bases,
)
from dnagpt_fast.variants.places import variant_scores
from dnagpt_fast.vocab import reverse_complement

SCORES = ("llr", "conditional")
MOST_BP = 2000


@dataclass(frozen=True)
class MutationMap:
    """scores: (length_bp, 4), columns A C G T, in the direction of the place; 0 for the reference base, NaN if there is
    no score. quantity: what the scores are, with their unit, for the figure."""

    place: Place
    bases: str
    scores: np.ndarray
    score: str
    quantity: str


def mutate(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    genome: Genome,
    place: Place | GenomeRange | str,
    *,
    score: str = "llr",
    progress: Callable[[int], object] = lambda bases: None,
    **settings: object,
) -> MutationMap:
    """The scores of all substitutions of a place: one of genome.selection, a range `genome["chr1:10-20"]` or its text.

    score     "llr", or "conditional": given only the bases before it
    progress  is called with the number of bases done since the last call
    settings  of variants.places.variant_scores
    Raises ValueError for settings or places that cannot be used.
    """
    if score not in SCORES:
        raise ValueError(f"score = {score!r}: wanted {' or '.join(SCORES)}")
    place = place_of(genome, place)
    length = place.end_bp - place.start_bp
    if not 1 <= length <= MOST_BP:
        raise ValueError(f"{place.name}: {length} bp: wanted 1..{MOST_BP}")
    bases = genome.sequence(place.contig, place.start_bp, place.end_bp)
    at = [i for i, base in enumerate(bases) if base != "N"]
    variants = (
        (place.contig, place.start_bp + i, bases[i], other)
        for i in at
        for other in BASE_ORDER
        if other != bases[i]
    )
    done = 0

    def count(more: int) -> None:
        nonlocal done
        progress((done + more) // 3 - done // 3)
        done += more

    found = variant_scores(model, tokenizer, genome, variants, progress=count, **settings)  # type: ignore[arg-type]
    values = np.full((length, 4), np.nan)
    for i in at:
        values[i, BASE_ORDER.index(bases[i])] = 0.0
        others = [base for base in BASE_ORDER if base != bases[i]]
        for base, one in zip(others, islice(found, 3), strict=True):
            value = getattr(one, score)
            values[i, BASE_ORDER.index(base)] = np.nan if value is None else value
    if place.strand == "-":
        bases, values = reverse_complement(bases), values[::-1, ::-1]
    name = "log-ratio" if score == "llr" else score
    return MutationMap(place, bases, values, score, f"{name} (nats)")


def mutate_answer(
    answer: Answer,
    genome: Genome,
    place: Place | GenomeRange | str,
    *,
    progress: Callable[[int], object] = lambda bases: None,
) -> MutationMap:
    """Every substitution of a place that a fine-tuned model reads as one sequence, in the direction of the place.

    The mutated sequences go through the model in batches of answer.batch_size, which changes the scores by no more than
    rounding.

    progress  is called with how many more bases are done
    Raises LabelError (a ValueError) for a place that is longer than the model reads.
    """
    place = place_of(genome, place)
    bases = strand_bases(genome, place)
    values = np.full((len(bases), 4), np.nan)
    reference = answer.values([bases], name=place.name)[0]
    together = max(answer.batch_size // 3, 1)
    for first in range(0, len(bases), together):
        some = [(i, bases[i]) for i in range(first, min(first + together, len(bases)))]
        asked = [(i, base) for i, old in some if old in BASE_ORDER for base in BASE_ORDER if base != old]
        if asked:
            found = answer.values([bases[:i] + base + bases[i + 1 :] for i, base in asked], name=place.name)
            for (i, base), value in zip(asked, found, strict=True):
                values[i, BASE_ORDER.index(base)] = value - reference
                values[i, BASE_ORDER.index(bases[i])] = 0.0
        progress(len(some))
    return MutationMap(place, bases, values, "difference", f"difference in {answer.name}")


def write_table(path: str | Path, found: MutationMap) -> None:
    """Writes contig, position (0-based), strand, reference, alternative, score; bases as on the strand."""
    place = found.place
    with TextFile(path) as table:
        table.write("\t".join(("contig", "position", "strand", "reference", "alternative", found.score)))
        for i, reference in enumerate(found.bases):
            position = position_of(place, i)
            for base, value in zip(BASE_ORDER, found.scores[i], strict=True):
                if base != reference and np.isfinite(value):
                    row = (place.contig, position, place.strand, reference, base, f"{value:.6g}")
                    table.write("\t".join(map(str, row)))


def plot(path: str | Path, found: MutationMap) -> None:
    """Logo and heat map as .png, .pdf or .svg. Raises ValueError for another ending, ImportError without logomaker."""
    check_figure(path)
    if not np.isfinite(found.scores).any():
        raise ValueError(f"{found.place.name}: none of its bases has a score, so there is nothing to draw")
    place = found.place
    with place_figure(path, len(found.bases), 2.6) as figure:
        logo, heat = figure.subplots(2, 1, sharex=True, height_ratios=(1.2, 1))
        draw_logo(logo, found.bases, -np.nan_to_num(np.nansum(found.scores, axis=1) / 3))
        logo.set_ylabel(f"mean loss of\n{found.quantity}")
        logo.tick_params(axis="x", length=0)
        largest = float(np.nanmax(np.abs(found.scores), initial=1e-9))
        image = heat.imshow(
            found.scores.T,
            cmap=DIVERGING,
            vmin=-largest,
            vmax=largest,
            aspect="auto",
            interpolation="nearest",
        )
        heat.set_facecolor(PALE)  # bases without a score
        here = [(i, BASE_ORDER.index(base)) for i, base in enumerate(found.bases) if base in BASE_ORDER]
        if here:
            x, y = zip(*here, strict=True)
            heat.plot(x, y, ".", color=BLACK, markersize=2)
        heat.set_yticks(range(4), list(BASE_ORDER))
        heat.set_ylabel("mutated to")
        label_positions(heat, place)
        # beside both panels, so that its label has room
        figure.colorbar(image, ax=[logo, heat], label=found.quantity, shrink=0.9, aspect=30, pad=0.01)
