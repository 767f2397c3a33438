"""Names of places: contigs by either of their usual names, and ranges such as chr20:100-200."""

import re

from dnagpt_fast.genome.genome import Genome

RANGE = re.compile(r"(?P<contig>.+):(?P<start>[\d,]+)-(?P<end>[\d,]+)")


class RegionError(ValueError):
    """A contig or a range that the genome does not have."""


def find_contig(genome: Genome, name: str, where: str) -> str:
    """The genome's name of a contig: as given, or with `chr` put before or taken away. Raises RegionError."""
    for candidate in (name, name.removeprefix("chr"), f"chr{name}"):
        if candidate in genome.names:
            return candidate
    some = ", ".join(genome.names[:5]) + (", ..." if len(genome.names) > 5 else "")
    raise RegionError(
        f"{where}: no contig {name!r} in {genome.path}, which has {some}: rename, or give its genome"
    )


def parse_range(text: str, genome: Genome) -> tuple[int, int, int]:
    """`contig` or `contig:start_bp-end_bp` (0-based, half-open) -> contig index, start, end. Raises RegionError."""
    if text in genome.names:
        contig = genome.names.index(text)
        return contig, 0, int(genome.lengths[contig])
    match = RANGE.fullmatch(text)
    if match is None or match["contig"] not in genome.names:
        some = ", ".join(genome.names[:5]) + (", ..." if len(genome.names) > 5 else "")
        raise RegionError(
            f"held-out range {text!r} of {genome.path}: wanted contig or contig:start-end; it has {some}"
        )
    contig = genome.names.index(match["contig"])
    start_bp, end_bp = (int(match[name].replace(",", "")) for name in ("start", "end"))
    if not 0 <= start_bp < end_bp <= genome.lengths[contig]:
        raise RegionError(
            f"held-out range {text!r} of {genome.path}: wanted 0 <= start < end <= {genome.lengths[contig]}"
        )
    return contig, start_bp, end_bp
