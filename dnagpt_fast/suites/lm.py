"""Suite lm: nats per base on held-out ranges of a genome, beside Markov chains fitted on the rest of it."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from dnagpt_fast.genome.selection import Place, places_of
from dnagpt_fast.suites.scored import FittedChains, blocks, loci, windows
from dnagpt_fast.suites.task import LIKELIHOOD, Prediction, Scorer, Source, Task, stem

NAME = "lm"
ABOUT = "held-out likelihood: nats per base"
LAYOUT = "DIR/NAME.bed with the held-out ranges of --genome; one task for each file"
WINDOW_BP = 1200
BLOCK_BP = 100_000
CHAINS = ("Markov chain of order 2", "Markov chain of order 5", "best Markov chain")


def tasks(source: Source) -> Iterator[Task]:
    genome = source.opened_genome("a file of ranges")
    for path in source.tables(".bed"):
        ranges = list(places_of(genome, bed=source.read(path)))
        if source.wants(stem(path)):
            yield _task(stem(path), source, ranges)


def _task(name: str, source: Source, ranges: list[Place]) -> Task:
    genome = source.opened_genome("a file of ranges")
    places = windows(source, genome, ranges, source.window_bp or WINDOW_BP, name)
    texts = [genome.sequence(place.contig, place.start_bp, place.end_bp) for place in places]
    chains = FittedChains(genome, ranges)
    bases = np.array([len(text) for text in texts], np.float64)

    def of_chain(number: int) -> Prediction:
        nats = chains.log_likelihoods(texts)[number]
        return Prediction([np.stack([nats, bases], 1)], chains.chosen(number))

    return Task(
        name=name,
        measure="nats_per_bp",
        rising=False,
        rows=len(texts),
        scorer=_scorer,
        baselines={
            "uniform": lambda: Prediction([np.stack([-math.log(4) * bases, bases], 1)]),
            **{label: partial(of_chain, number) for number, label in enumerate(CHAINS)},
        },
        ways={LIKELIHOOD: lambda subject: Prediction([subject.log_likelihoods(texts)])},
        clusters=blocks(places, BLOCK_BP),
        facts={"windows": len(texts), "window_bp": len(texts[0]), "ranges": len(ranges)},
        texts=[(text, f"{name}: {place.name}") for text, place in zip(texts, places, strict=True)],
        loci=loci(places),
    )


def _scorer(values: np.ndarray) -> Scorer:
    def scores(rows: np.ndarray) -> dict[str, float]:
        nats, bases = values[rows].sum(0)
        return {"nats_per_bp": float(-nats / bases)}

    return scores
