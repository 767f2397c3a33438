"""Reads .2bit and FASTA files into packed arrays."""

from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.records import GenomeFileError

__all__ = ["Genome", "GenomeFileError"]
