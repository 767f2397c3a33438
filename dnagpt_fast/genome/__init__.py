"""Genome files: .2bit and FASTA in, packed arrays out."""

from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.records import GenomeFileError

__all__ = ["Genome", "GenomeFileError"]
