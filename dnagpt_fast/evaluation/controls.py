"""Scores of sequences beside their dinucleotide shuffles: is a sequence likelier than its composition alone makes it?

A shuffle has exactly the dinucleotide counts of its sequence (shuffle.py), so a model that knew nothing but them would
score both alike. The statistic is z = (score - mean of the shuffles) / their standard deviation, all in nats per base.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from dnagpt_fast.evaluation.shuffle import dinucleotide_shuffle
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.score import Score, score
from dnagpt_fast.model.sequences import Source, naming_row, sequences_of, text_of
from dnagpt_fast.model.token_windows import clean_bases, usable_bp
from dnagpt_fast.model.tokenizer import KmerTokenizer

MOST_BP = 1_000_000
"""Longest sequence that is shuffled: a shuffle takes about a microsecond a base and is kept as text."""


@dataclass(frozen=True)
class ControlledScore:
    """score: of the sequence; mean, sd: of its shuffles' log-likelihoods per base, in nats, sd with n - 1."""

    score: Score
    mean: float
    sd: float

    @property
    def z(self) -> float:
        """NaN where all shuffles have one score, as those of a repeat of one base."""
        return (self.score.per_bp - self.mean) / self.sd if self.sd > 0 else math.nan


def score_with_controls(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    sequences: Iterable[Source],
    *,
    controls: int = 20,
    seed: int = 0,
    progress: Callable[[int], object] = lambda bases: None,
    **settings: Any,
) -> Iterator[ControlledScore]:
    """The score of each sequence and of `controls` dinucleotide shuffles of it, in order.

    sequences  as of `score`
    controls   2 or more shuffles of each sequence
    seed       the same (seed, sequence) gives the same shuffles, in any file and at any place in it
    progress   called with the number of bases done since its last call; those of the shuffles count too
    settings   of `score`
    N is a letter like the others: its pairs are kept, too. Raises as `score` does; ValueError for fewer than 2 shuffles
    and for a sequence of more than MOST_BP.

    >>> from dnagpt_fast import load_model
    >>> model, tokenizer = load_model("dna_gpt6m_m")
    >>> (one,) = score_with_controls(model, tokenizer, ["ACGTTGCATGTTAACCGGATTACA"], controls=5)
    >>> one.score.length_bp, one.sd > 0, one.z == (one.score.per_bp - one.mean) / one.sd
    (24, True, True)
    """
    if controls < 2:
        raise ValueError(f"controls = {controls}: wanted 2 or more, for a standard deviation")
    scores = score(
        model, tokenizer, _with_shuffles(tokenizer, sequences, controls, seed), progress=progress, **settings
    )
    return _grouped(scores, controls)


def _with_shuffles(
    tokenizer: KmerTokenizer, sequences: Iterable[Source], controls: int, seed: int
) -> Iterator[Source]:
    """Checks each sequence here, where its row is known: `score` counts the shuffles, too."""
    for row, source in sequences_of(sequences):
        with naming_row(row):
            if len(source) > MOST_BP:
                raise ValueError(
                    f"{len(source):,} bp: sequences of up to {MOST_BP:,} are shuffled; cut it into windows"
                )
            bases = clean_bases(text_of(source))
            usable_bp(tokenizer, len(bases))
        yield source
        for number in range(controls):
            key = hashlib.blake2b(f"{seed}/{number}/{bases}".encode(), digest_size=16).digest()
            rng = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
            yield dinucleotide_shuffle(bases, rng)


def _grouped(scores: Iterator[Score], controls: int) -> Iterator[ControlledScore]:
    for own in scores:
        values = np.array([one.per_bp for one in islice(scores, controls)])
        yield ControlledScore(own, float(values.mean()), float(values.std(ddof=1)))
