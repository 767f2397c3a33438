"""What the readers raise for a file that is truncated, corrupt, foreign or not what it says it is."""


class GenomeFileError(ValueError):
    """Names the file, the place in it (offset, line, contig), what stood there and what was wanted."""
