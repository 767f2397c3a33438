"""Genome files: .2bit and FASTA in, packed arrays out."""

from dnagpt_fast.genome.errors import GenomeFileError
from dnagpt_fast.genome.genome import Genome

__all__ = ["Genome", "GenomeFileError"]
