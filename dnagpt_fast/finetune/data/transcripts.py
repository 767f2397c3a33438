"""Transcripts of an annotation, and what was left out of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.input_files import parse_integer

Span = tuple[int, int]
"""[start_bp, end_bp), 0-based."""

LONGEST_CONTIG = 1 << 32  # as in .2bit; a larger coordinate is two numbers run together


@dataclass(frozen=True)
class Transcript:
    """One transcript; coordinates 0-based, half-open, on the forward strand.

    exons           int64 (n, 2), sorted, disjoint
    coding_bp       first and last coding base as [start_bp, end_bp), None for a non-coding one
    start_complete  the annotation knows the true start of the coding part (the 5' end in the transcript's sense)
    end_complete    the annotation knows the true 3' end of the transcript
    circular_bp     length of its contig where that is circular: coordinates may then pass it; 0: linear
    """

    name: str
    gene: str
    contig: str
    strand: str
    exons: np.ndarray
    coding_bp: Span | None
    start_complete: bool
    where: str
    end_complete: bool = True
    circular_bp: int = 0

    @property
    def length_bp(self) -> int:
        """Bases of the spliced transcript."""
        return int((self.exons[:, 1] - self.exons[:, 0]).sum())


class LeftOut:
    """Counts of what an annotation holds and nobody can use, by reason, each with its first place."""

    def __init__(self) -> None:
        self._found: dict[str, list] = {}

    def add(self, reason: str, where: str) -> None:
        self._found.setdefault(reason, [0, where])[0] += 1

    def __bool__(self) -> bool:
        return bool(self._found)

    def __str__(self) -> str:
        return "; ".join(
            f"{count} {reason} (first: {where})" for reason, (count, where) in self._found.items()
        )


def parse_coordinate(text: str, where: str, what: str) -> int:
    """An integer below LONGEST_CONTIG. Raises LabelError."""
    value = parse_integer(text, where, what)
    if not 0 <= value < LONGEST_CONTIG:
        raise LabelError(
            f"{where}: {what} = {value:,}: wanted 0 or more, and fewer bases than a contig can have"
        )
    return value


def exon_array(spans: Sequence[Span]) -> np.ndarray | None:
    """int64 (n, 2), sorted; None unless they are disjoint and none is empty."""
    exons = np.array(sorted(spans), np.int64).reshape(-1, 2)
    if (exons[:, 0] >= exons[:, 1]).any() or (exons[1:, 0] < exons[:-1, 1]).any():
        return None
    return exons


def merged(spans: Sequence[Span], gap_bp: int = 0) -> list[Span]:
    """The spans' union; those at most gap_bp apart become one.

    >>> merged([(5, 9), (0, 4), (8, 12)], 1)
    [(0, 12)]
    """
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1] + gap_bp:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found
