"""Pairs for the splice-site knock-out: a base of the motif replaced, and the same change deeper in the intron."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dnagpt_fast.evaluation.variant_baselines import Variant
from dnagpt_fast.genome import Genome
from dnagpt_fast.vocab import reverse_complement

MOTIFS = {"donor": "GT", "acceptor": "AG"}


class Intron(NamedTuple):
    """[start_bp, end_bp) on the forward strand."""

    contig: str
    start_bp: int
    end_bp: int
    strand: str


def knock_outs(
    genome: Genome,
    introns: Sequence[Intron],
    kind: str,
    control_bp: tuple[int, int],
    rng: np.random.Generator,
) -> list[tuple[Variant, Variant]]:
    """(Knock-out, control) of each intron that has the motif and a place for the control; a site is used once.

    control_bp: the nearest and the farthest distance of the control from the replaced base, inside the intron. Both
    have the same trinucleotide change, so that no table of changes tells them apart.
    """
    near, far = control_bp
    pairs: dict[tuple[str, int, str], tuple[Variant, Variant]] = {}
    for intron in introns:
        text = genome.sequence(intron.contig, intron.start_bp - 1, intron.end_bp + 1)
        if intron.strand == "-":
            text = reverse_complement(text)
        # text[1 : -1] is the intron as it is transcribed
        site = 1 if kind == "donor" else len(text) - 3
        if text[site : site + 2] != MOTIFS[kind]:
            continue
        at = site + int(rng.integers(2))
        alternative = str(rng.choice([base for base in "ACGT" if base != text[at]]))
        places = [at + d if kind == "donor" else at - d for d in range(near, far)]
        control = next((p for p in places if text[p - 1 : p + 2] == text[at - 1 : at + 2]), None)
        if control is None:
            continue
        end = intron.start_bp if (kind == "donor") == (intron.strand == "+") else intron.end_bp
        pairs.setdefault(
            (intron.contig, end, intron.strand),
            (_variant(intron, text, at, alternative), _variant(intron, text, control, alternative)),
        )
    return list(pairs.values())


def _variant(intron: Intron, text: str, place: int, alternative: str) -> Variant:
    """text: the transcribed intron with one base on each side; place: in it."""
    if intron.strand == "+":
        return intron.contig, intron.start_bp - 1 + place, text[place], alternative
    reference, other = map(reverse_complement, (text[place], alternative))
    return intron.contig, intron.end_bp - place, reference, other
