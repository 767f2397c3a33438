"""The packed genome as arrays: the result of the file readers and the input of the kernels.

Bases are packed as in UCSC .2bit (https://genome.ucsc.edu/FAQ/FAQformat.html#format7): T=00 C=01 A=10 G=11, four to
a byte, first base in the two highest bits. The low bit of a code is set for G and C; complement is xor 0b10. Packed
codes under an N block have no meaning: only the blocks say where N is.
Coordinates are 0-based and half-open.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BASES_PER_BYTE = 4


@dataclass(frozen=True)
class PackedGenome:
    """C contigs in one byte buffer, M N-blocks in all; every tensor on one device, contiguous.

    packed              uint8 (bytes,)  may be a whole mapped .2bit file; contigs start at byte_offset
    byte_offset         int64 (C,)      first byte of each contig in `packed`
    length_bp           int64 (C,)
    n_block_index       int64 (C + 1,)  contig c owns the blocks n_block_index[c] : n_block_index[c + 1]
    n_block_start_bp    int64 (M,)      sorted within a contig, disjoint, never empty
    n_block_end_bp      int64 (M,)
    """

    packed: "torch.Tensor"
    byte_offset: "torch.Tensor"
    length_bp: "torch.Tensor"
    n_block_index: "torch.Tensor"
    n_block_start_bp: "torch.Tensor"
    n_block_end_bp: "torch.Tensor"

    @property
    def device(self) -> "torch.device":
        return self.packed.device

    def to(self, device: "torch.device | str") -> "PackedGenome":
        """The same arrays on `device`, without a copy if they are there already."""
        return PackedGenome(*(getattr(self, field).to(device) for field in self.__dataclass_fields__))

    def __reduce__(self) -> tuple:
        """Pickled as its arrays: the views that ops keep with it (ops/native.py) hold addresses."""
        return PackedGenome, tuple(getattr(self, field) for field in self.__dataclass_fields__)

    def __deepcopy__(self, memo: dict) -> "PackedGenome":
        """The same object: a genome is never written to, and may be larger than the memory."""
        return self


@dataclass(frozen=True)
class PackedRange:
    """Bases [start_bp, end_bp) of a contig on one strand; nothing is unpacked.

    contig   index into the genome's contigs
    reverse  read as the reverse complement, from end_bp - 1 down to start_bp
    """

    genome: PackedGenome
    contig: int
    start_bp: int
    end_bp: int
    reverse: bool = False

    def __len__(self) -> int:
        return self.end_bp - self.start_bp

    def part(self, start: int, end: int) -> "PackedRange":
        """Bases [start, end) of this range, counted in the direction of the range."""
        if self.reverse:
            start, end = len(self) - end, len(self) - start
        return replace(self, start_bp=self.start_bp + start, end_bp=self.start_bp + end)

    def reverse_complement(self) -> "PackedRange":
        """The other strand of the same bases."""
        return replace(self, reverse=not self.reverse)
