"""Places of a genome -> FASTA, on their strand and with their soft mask; a whole .2bit back to FASTA."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.selection import Place, range_name
from dnagpt_fast.output_files import LINE_BP
from dnagpt_fast.vocab import reverse_complement

PIECE_LINES = 1 << 17
"""Lines in memory at once: 7.9 Mbp."""


class Extracted(NamedTuple):
    records: int
    bases: int


def fasta_blocks(
    genome: Genome, places: Iterable[Place], counted: list[Extracted], *, soft_mask: bool = True
) -> Iterator[str]:
    """FASTA of the places as blocks of lines, without the last line end of each block.

    soft_mask  masked bases are lower case
    counted    gets what was written so far, in place of its last entry
    A title is the place's name; after it its range, where the name does not say it. Blanks in names become `_`.
    """
    records = bases = 0
    for place in places:
        where = range_name(place.contig, place.start_bp, place.end_bp, place.strand)
        name = "_".join(place.name.split())
        length = int(genome.lengths[genome.contigs.find(place.contig)])
        whole = place[1:] == (place.contig, 0, length, "+")
        is_said = place.name == where or (whole and place.name == place.contig)
        yield f">{name}" if is_said else f">{name} {where}"
        for start, end in pieces(place):
            text = genome.sequence(place.contig, start, end, soft_mask=soft_mask)
            text = reverse_complement(text) if place.strand == "-" else text
            yield "\n".join(text[i : i + LINE_BP] for i in range(0, len(text), LINE_BP))
        records, bases = records + 1, bases + place.end_bp - place.start_bp
        counted[-1:] = [Extracted(records, bases)]


def pieces(place: Place) -> Iterator[tuple[int, int]]:
    """Parts of the place in its own direction, in whole lines."""
    step = PIECE_LINES * LINE_BP
    if place.strand == "-":
        for end in range(place.end_bp, place.start_bp, -step):
            yield max(end - step, place.start_bp), end
    else:
        for start in range(place.start_bp, place.end_bp, step):
            yield start, min(start + step, place.end_bp)
