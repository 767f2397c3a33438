"""Transcripts of an annotation, and counts of the records that were left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.input_files import parse_integer

Span = tuple[int, int]
"""[start_bp, end_bp), 0-based."""

LONGEST_CONTIG = 1 << 32  # as in .2bit; a larger coordinate is probably two numbers without a separator


@dataclass(frozen=True)
class Transcript:
    """One transcript; coordinates 0-based, half-open, on the forward strand.

    exons           int64 (n, 2), sorted, disjoint
    coding_bp       [start_bp, end_bp) from the first to the last coding base; None for a non-coding
                    transcript
    start_complete  whether the annotation has the true start of the coding part (its 5' end)
    end_complete    whether the annotation has the true 3' end of the transcript
    circular_bp     length of a circular contig, which coordinates may exceed; 0: linear
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
    """Counts of the records of an annotation that cannot be used, by reason, each with its first place."""

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
        raise LabelError(f"{where}: {what} = {value:,}: wanted 0 or more, and less than {LONGEST_CONTIG:,}")
    return value


def exon_array(spans: Sequence[Span]) -> np.ndarray | None:
    """int64 (n, 2), sorted; None if spans overlap or one is empty."""
    exons = np.array(sorted(spans), np.int64).reshape(-1, 2)
    if (exons[:, 0] >= exons[:, 1]).any() or (exons[1:, 0] < exons[:-1, 1]).any():
        return None
    return exons


def merged(spans: Sequence[Span], gap_bp: int = 0) -> list[Span]:
    """The union of the spans; spans at most gap_bp apart are merged.

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
