"""What the readers of a genome file give: one packed contig at a time."""

from dataclasses import dataclass

import numpy as np

from dnagpt_fast.input_files import InputFileError
from dnagpt_fast.ops.fasta_pack import FastaPacker


@dataclass(frozen=True)
class PackedRecord:
    """One contig: packed uint8 (ceil(length_bp / 4),), the last byte padded with zeros.

    n_blocks, mask_blocks: int64 (n, 2) [start_bp, end_bp); ambiguous: how many letters other than N became N.
    """

    name: str
    length_bp: int
    packed: np.ndarray
    n_blocks: np.ndarray
    mask_blocks: np.ndarray
    ambiguous: int = 0

    @classmethod
    def of(cls, name: str, packer: FastaPacker) -> "PackedRecord":
        """What the packer has taken in; the packer is spent."""
        packed, n_blocks, mask_blocks = packer.finish()
        return cls(name, packer.length_bp, packed, n_blocks, mask_blocks, packer.ambiguous)


class GenomeFileError(InputFileError):
    """Names the file, the place in it (offset, line, contig), what stood there and what was wanted."""
