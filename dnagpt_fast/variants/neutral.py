"""Random variants of a genome and the calibration that their scores give: the same for the same seed."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol

import numpy as np

from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.selection import Place, Places
from dnagpt_fast.model.alleles import AlleleRule, allele_scores
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.haplotypes import LEAST_BP, NotScorable, Site, in_short_repeat
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.marginals import BASE_ORDER
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.variants.calibration import KINDS, LENGTHS, Calibration, Spread, class_of, identity
from dnagpt_fast.variants.places import CHUNK, Variant, site_of

TRIES = 50
"""Draws for each variant that is wanted, before a genome counts as too small or too unknown."""


class Finished(Protocol):
    """Scores of an unfinished job in the order in which the variants are drawn, as training/row_journal.py keeps them:
    rows of one float64, not a number where a variant has no score."""

    count: int

    def append(self, row: list[float]) -> None: ...

    def rows(self) -> Iterator[np.ndarray]: ...


def calibrate(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    genome: Genome,
    places: Places,
    rule: AlleleRule,
    *,
    sites: int = 10_000,
    indels: int = 200,
    seed: int = 0,
    max_tokens: int = 4096,
    finished: Finished | None = None,
    progress: Callable[[int], object] = lambda variants: None,
) -> Calibration:
    """The spreads of the scores of random variants.

    places    where they are drawn, each base with the same chance; overlapping places count twice
    sites     single-base sites; each gives all three substitutions
    indels    insertions, and deletions, of each length class
    finished  scores of a stopped job with the same arguments, not computed again; new ones are added
    progress  is called with the number of variants done since the last call
    Raises ValueError for places that have too few bases which can be scored, and for a rule without DG_LLR.
    """
    if rule.name == "next-token":
        raise ValueError("the rule next-token has no DG_LLR to calibrate: wanted dnagpt or full-ll")
    for name, value in (("sites", sites), ("indels", indels)):
        if value < 2:
            raise ValueError(f"{name} = {value}: wanted at least 2")
    inference, scores = Inference(model), defaultdict(list)
    drawn = random_sites(genome, places, rule, tokenizer.k, sites=sites, indels=indels, seed=seed)

    def keep(site: Site, llr: float | None) -> None:
        names = class_of(site, rule.strands)
        if llr is not None and names is not None:
            for name in names:
                scores[name].append(llr)

    if finished is not None:
        for site, (llr,) in zip(islice(drawn, finished.count), finished.rows(), strict=True):
            keep(site, None if math.isnan(llr) else float(llr))
        progress(finished.count)
    while some := list(islice(drawn, CHUNK)):
        for site, score in zip(
            some, allele_scores(inference, tokenizer, some, rule, max_tokens=max_tokens), strict=True
        ):
            keep(site, score.llr)
            if finished is not None:
                finished.append([math.nan if score.llr is None else score.llr])
        progress(len(some))
    classes = {name: Spread.of(values) for name, values in scores.items() if len(values) > 1}
    missing = [kind for kind in KINDS if kind not in classes]
    if missing:
        raise ValueError(
            f"{genome.path}: no random {' or '.join(missing)} could be scored: wanted longer contigs"
        )
    how = {"sites": sites, "indels": indels, "seed": seed, "places_bp": places.total_bp}
    return Calibration({**identity(model, genome, rule), **how}, classes)


def random_sites(
    genome: Genome, places: Places, rule: AlleleRule, k: int, *, sites: int, indels: int, seed: int
) -> Iterator[Site]:
    """Single bases, then insertions and deletions of each length class. An inserted text is a copy of another part of
    the places. Indels in short tandem repeats are left out, because their scores mean little. Raises ValueError for
    places that have too few bases which can be scored."""
    draw, several = np.random.default_rng(seed), list(places)
    ends = np.cumsum([place.end_bp - place.start_bp for place in several])

    def text(length: int) -> tuple[Place, int, str]:
        """A random range of A, C, G, T only, in one place: its start and its bases."""
        for _ in range(TRIES):
            at = int(draw.integers(ends[-1]))
            place = several[int(np.searchsorted(ends, at, side="right"))]
            start = int(draw.integers(place.start_bp, place.end_bp))
            if start + length <= place.end_bp:
                bases = genome.sequence(place.contig, start, start + length)
                if "N" not in bases:
                    return place, start, bases
        raise _too_few(genome)

    def scorable(reference_bp: int, alternatives: Callable[[str], list[str]]) -> list[Site]:
        for _ in range(TRIES):
            place, start, bases = text(reference_bp)
            found = [
                site_of(genome, Variant(place.contig, start, bases, other), rule, k)
                for other in alternatives(bases)
            ]
            usable = [site for site in found if isinstance(site, Site) and _is_usable(site, k)]
            if len(usable) == len(found):
                return usable
        raise _too_few(genome)

    for _ in range(sites):
        yield from scorable(1, lambda bases: [base for base in BASE_ORDER if base != bases])
    for shortest, longest in LENGTHS:
        # those that no window of the model can hold have no score
        for _ in range(indels if longest < k * rule.reach.max_tokens else 0):
            length = int(draw.integers(shortest, longest + 1))
            yield from scorable(1, lambda bases, n=length: [bases + text(n)[2]])  # type: ignore[misc]
            yield from scorable(1 + length, lambda bases: [bases[0]])


def variants_drawn(sites: int, indels: int) -> int:
    return 3 * sites + 2 * indels * len(LENGTHS)


def _is_usable(site: Site, k: int) -> bool:
    """Whether it has a score that means something: far enough from the ends, and not in a short tandem repeat."""
    longest = max(len(site.reference), len(site.alternative))
    try:
        repeat = in_short_repeat(site)
    except NotScorable:
        return False
    return not repeat and min(len(site.left), len(site.right)) >= LEAST_BP + 2 * k + longest


def _too_few(genome: Genome) -> ValueError:
    return ValueError(
        f"{genome.path}: {TRIES} random places in a row were unknown, in a repeat or at an end: wanted longer sequence "
        "with fewer N; choose it by --region or --bed"
    )
