"""One packed contig, as the readers of genome files yield it, and their error."""

from dataclasses import dataclass

import numpy as np

from dnagpt_fast.input_files import InputFileError
from dnagpt_fast.ops.fasta_pack import FastaPacker


@dataclass(frozen=True)
class PackedRecord:
    """One contig: packed uint8 (ceil(length_bp / 4),), the last byte padded with zeros.

    n_blocks, mask_blocks: int64 (n, 2) [start_bp, end_bp); ambiguous: number of letters other than N that
    became N.
    """

    name: str
    length_bp: int
    packed: np.ndarray
    n_blocks: np.ndarray
    mask_blocks: np.ndarray
    ambiguous: int = 0

    @classmethod
    def of(cls, name: str, packer: FastaPacker) -> "PackedRecord":
        """The contig that the packer has read; the packer cannot be used again."""
        packed, n_blocks, mask_blocks = packer.finish()
        return cls(name, packer.length_bp, packed, n_blocks, mask_blocks, packer.ambiguous)


class GenomeFileError(InputFileError):
    """A genome file that cannot be read; the message names the file, the place in it (offset, line, contig),
    what was found there and what was wanted."""
