"""`Genome`: named contigs over one packed byte buffer, opened from .2bit or FASTA."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dnagpt_fast.genome.fasta import read_fasta
from dnagpt_fast.genome.genome_range import GenomeRange
from dnagpt_fast.genome.records import GenomeFileError, PackedRecord
from dnagpt_fast.genome.regions import ContigNames, NoSuchRegion, RegionError, range_in, split_strand
from dnagpt_fast.genome.twobit import TwoBit, is_twobit, read_twobit
from dnagpt_fast.input_files import GZIP_MAGIC, UTF8_MARK, UTF16_MARKS
from dnagpt_fast.ops.host_genome import HostGenome
from dnagpt_fast.ops.sequence_text import sequence_text
from dnagpt_fast.packed import BASES_PER_BYTE, PackedGenome

if TYPE_CHECKING:
    import torch

PIECE = 1 << 20
MOST_HASHED = 4 << 30


class Genome(Mapping[str, GenomeRange]):
    """Contigs of one file. The bases of a .2bit stay in the mapped file; FASTA is packed into memory at
    opening.

    As a mapping it has the contigs by name, and gives ranges of them: `genome["chr1"]`, `genome["chr1:10-20"]`
    (0-based, half-open), `genome["chr1:10-20(-)"]` for the reverse strand; `len`, `in`, iteration, `items()` and
    `values()` are those of the contigs. A GenomeRange goes into `embed`, `score` and the others; `str()` is its text.

    names: list[str]; contigs: finds the number of a name; lengths: int64 (C,) bases. A contig is found by its
    name or by its other usual name, `chr20` or `20`. Use as a context manager or call `close`.
    """

    def __init__(
        self,
        path: Path,
        names: list[str],
        host: HostGenome,
        mask_blocks,
        arrays: PackedGenome | None = None,
        file: TwoBit | None = None,
    ) -> None:
        """host: the arrays on the CPU; mask_blocks: contig -> int64 (n, 2).

        arrays  the same as tensors on another device
        file    the mapped file with the data of `host`
        """
        self.path = path
        self.names = names
        self.lengths = host.length_bp
        self.contigs = ContigNames(names, path)
        self._host: HostGenome | None = host
        self._tensors: PackedGenome | None = None
        self._arrays: PackedGenome | None = arrays
        self._mask_blocks = mask_blocks
        self._file = file

    @classmethod
    def open(cls, path: "str | os.PathLike[str]") -> "Genome":
        """Opens .2bit (memory-mapped, of any size) or FASTA (plain, gzip or BGZF); recognised by content.

        FASTA may come from a pipe, .2bit may not. Raises FileNotFoundError, or InputFileError (most often
        GenomeFileError, a ValueError) for a damaged file or one of another format.

        >>> _ = Path("two.fa").write_text(">one\\nACGTNacgtAAA\\n>two\\nGGGGCCCCTTTT\\n")
        >>> genome = Genome.open("two.fa")
        >>> genome.names, genome.lengths.tolist(), genome.sequence("one", 0, 6)
        (['one', 'two'], [12, 12], 'ACGTNA')
        >>> genome["two"], str(genome["one:0-4(-)"]), [(name, len(bases)) for name, bases in genome.items()]
        (GenomeRange('two:0-12', 12 bp, GGGGCCCCTTTT), 'ACGT', [('one', 12), ('two', 12)])
        """
        path = _path_of(path)
        if path.exists() and not (path.is_file() or path.is_dir()):
            return cls._from_records(path, list(read_fasta(path)))
        with open(path, "rb") as file:
            start = file.read(4)
        if is_twobit(start) or path.suffix.lower() == ".2bit":
            return cls._from_twobit(path)
        if not start:
            raise GenomeFileError(f"{path}: the file is empty")
        if start.startswith((GZIP_MAGIC, UTF8_MARK, *UTF16_MARKS)) or start.lstrip(b"\r\n \t")[:1] in (
            b">",
            b"",
        ):
            return cls._from_records(path, list(read_fasta(path)))
        raise GenomeFileError(
            f"{path}: offset 0: {start!r}: neither a .2bit signature, nor gzip, nor the '>' of FASTA"
        )

    @classmethod
    def _from_twobit(cls, path: Path) -> "Genome":
        file = read_twobit(path)
        blocks = file.n_blocks
        host = _host_genome(
            file.data, file.byte_offset, file.length_bp, file.n_block_index, blocks[:, 0], blocks[:, 1]
        )
        return cls(path, file.names, host, file.mask_blocks, file=file)

    @classmethod
    def _from_records(cls, path: Path, records: list[PackedRecord]) -> "Genome":
        offset = np.cumsum([0] + [len(record.packed) for record in records])
        index = np.cumsum([0] + [len(record.n_blocks) for record in records])
        blocks = np.concatenate([record.n_blocks for record in records])
        packed = np.concatenate([record.packed for record in records])
        length = np.array([record.length_bp for record in records], np.int64)
        masks = [record.mask_blocks for record in records]
        host = _host_genome(packed, offset[:-1], length, index, blocks[:, 0], blocks[:, 1])
        return cls(path, [record.name for record in records], host, masks.__getitem__)

    @property
    def arrays(self) -> PackedGenome:
        """The arrays that the kernels take, as tensors on `device`. Raises ValueError after `close`."""
        return self._arrays or self._host_tensors()

    def _host_tensors(self) -> PackedGenome:
        """The arrays on the CPU as tensors over the same memory; made, and so checked, only once."""
        host = self.host
        if self._tensors is None:
            import torch  # imported late, because its import is slow and many commands need no tensor

            self._tensors = PackedGenome(*map(torch.from_numpy, host.arrays()))
        return self._tensors

    @property
    def host(self) -> HostGenome:
        """The arrays on the CPU, as numpy arrays. Raises ValueError after `close`."""
        if self._host is None:
            raise ValueError(f"genome {self.path} is closed")
        return self._host

    @property
    def device(self) -> "torch.device":
        return self.arrays.device

    def to(self, device: "torch.device | str") -> "Genome":
        """A copy of the genome with its packed bases and N blocks on `device`."""
        return Genome(self.path, self.names, self.host, self._mask_blocks, self.arrays.to(device), self._file)

    def expect_random_reads(self) -> None:
        """For random windows of a mapped genome: switches off the system's read-ahead, see TwoBit."""
        if self._file is not None:
            self._file.expect_random_reads()

    def sequence(
        self, name: str, start_bp: int = 0, end_bp: int | None = None, soft_mask: bool = False
    ) -> str:
        """Bases [start_bp, end_bp) of a contig as text over ACGTN; lower case for masked bases only with soft_mask.

        Raises ValueError for an unknown contig or a range that leaves it.
        """
        contig, host = self._find(name), self.host
        start_bp, end_bp = self._checked(contig, start_bp, end_bp)
        letters = sequence_text(host, contig, start_bp, end_bp)
        if soft_mask:
            for block_start, block_end in _clipped(self.mask_blocks(name), start_bp, end_bp):
                letters[block_start:block_end] |= 0x20
        return letters.tobytes().decode("ascii")

    def other_bases_at(self, contig: int, start_bp: int, bases: str) -> str | None:
        """None if the genome has these bases at this place of the contig with this number; otherwise its own bases,
        empty outside the contig. The genome's N, and letters in `bases` other than A C G T, match any base."""
        end_bp = start_bp + len(bases)
        if not 0 <= start_bp <= end_bp <= int(self.lengths[contig]):
            return ""
        found = self.sequence(self.names[contig], start_bp, end_bp)
        pairs = zip(found, bases.upper(), strict=True)
        return None if all(a == b or a == "N" or b not in "ACGT" for a, b in pairs) else found

    def range(
        self, name: str, start_bp: int = 0, end_bp: int | None = None, strand: str = "+"
    ) -> GenomeRange:
        """Bases [start_bp, end_bp) of a contig, for `embed`, `score` and others, or as text; strand "+" or "-".

        Raises ValueError as `sequence` does, and for another strand.
        """
        contig = self._find(name)
        start_bp, end_bp = self._checked(contig, start_bp, end_bp)
        if strand not in ("+", "-"):
            raise ValueError(f"strand {strand!r}: wanted + or -")
        return GenomeRange(self._host_tensors(), contig, start_bp, end_bp, strand == "-", self.names[contig])

    def __getitem__(self, region: str) -> GenomeRange:
        """A contig, or a range of one as `contig:start_bp-end_bp`, 0-based and half-open; with `(-)` after it its
        reverse strand. Raises NoSuchRegion, which is a KeyError and a RegionError."""
        if not isinstance(region, str):
            raise TypeError(f"genome[{region!r}]: wanted a str, such as 'chr1' or 'chr1:10-20'")
        if region in self.contigs:
            return self.range(region)
        text, strand = split_strand(region, self.contigs.__contains__)
        try:
            contig, start_bp, end_bp = range_in(text, self.contigs, self.lengths, f"genome[{region!r}]")
        except RegionError as error:
            raise NoSuchRegion(str(error)) from error
        return self.range(self.names[contig], start_bp, end_bp, strand)

    def __contains__(self, name: object) -> bool:
        """Whether `name` is a contig, by either of its usual names."""
        return isinstance(name, str) and name in self.contigs

    def __len__(self) -> int:
        """The number of contigs."""
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    # A mapping is equal to one with equal items; two genomes are too large to be compared by `==`.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        return True

    def n_blocks(self, name: str) -> np.ndarray:
        """Runs of unknown bases, int64 (n, 2) [start_bp, end_bp), sorted and disjoint."""
        contig, host = self._find(name), self.host
        begin, end = host.n_block_index[contig : contig + 2].tolist()
        return np.stack([host.n_block_start_bp[begin:end], host.n_block_end_bp[begin:end]], axis=1)

    def mask_blocks(self, name: str) -> np.ndarray:
        """Soft-masked runs, int64 (n, 2) [start_bp, end_bp), sorted and disjoint; read from the file on each call."""
        if self._host is None:
            raise ValueError(f"genome {self.path} is closed")
        return self._mask_blocks(self._find(name))

    def masked_bp(self) -> np.ndarray:
        """Soft-masked bases of every contig, int64 (C,)."""
        if self._file is not None:
            return self._file.masked_bp()
        masks = map(self._mask_blocks, range(len(self.names)))
        return np.array([int((blocks[:, 1] - blocks[:, 0]).sum()) for blocks in masks], np.int64)

    def content_hash(self) -> str:
        """SHA-256 of contig names, lengths and bases: of one sequence the same in .2bit and in FASTA, wherever it lies.

        Of more than MOST_HASHED bytes of packed bases it takes evenly spread pieces, for it is asked for whenever a run
        begins.
        """
        host = self.host
        digest = hashlib.sha256("\n".join(self.names).encode())
        for array in (host.length_bp, host.n_block_index, host.n_block_start_bp, host.n_block_end_bp):
            digest.update(array.astype("<i8").tobytes())
        sizes = -(-host.length_bp // BASES_PER_BYTE)
        step = PIECE * max(1, -(-int(sizes.sum()) // MOST_HASHED))
        for begin, size in zip(host.byte_offset.tolist(), sizes.tolist(), strict=True):
            for at in range(begin, begin + size, step):
                digest.update(host.packed[at : min(at + PIECE, begin + size)].data)
        return digest.hexdigest()

    def close(self) -> None:
        """Releases the packed bases; the mapping ends with the last tensor that uses it."""
        self._host = self._tensors = self._arrays = self._mask_blocks = self._file = None

    def __reduce__(self) -> tuple:
        """A mapped genome is pickled as its path and opened again, for example in a worker process; a genome
        that was packed into memory is pickled with its data."""
        if self._file is not None:
            device = "cpu" if self._arrays is None else str(self._arrays.device)
            return _opened_again, (self.path.absolute(), self.names, self.host.length_bp, device)
        return Genome, (self.path, self.names, self.host, self._mask_blocks, self._arrays)

    def __deepcopy__(self, memo: dict) -> "Genome":
        """Another object over the same bases, which are never changed; each object is closed separately."""
        return Genome(self.path, self.names, self.host, self._mask_blocks, self._arrays, self._file)

    def __enter__(self) -> "Genome":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._host is None else f"on {self.device}"
        return (
            f"Genome({str(self.path)!r}, {len(self.names)} contigs, {int(self.lengths.sum()):,} bp, {state})"
        )

    def _checked(self, contig: int, start_bp: int, end_bp: int | None) -> tuple[int, int]:
        """(start_bp, end_bp), None as the contig's length. Raises ValueError for a range that leaves the contig,
        TypeError for positions that are not integers."""
        length = int(self.lengths[contig])
        try:
            start_bp, end_bp = index(start_bp), length if end_bp is None else index(end_bp)
        except TypeError:
            raise TypeError(
                f"[{start_bp!r}, {end_bp!r}) of {self.names[contig]!r}: wanted integers, 0-based"
            ) from None
        if not 0 <= start_bp <= end_bp <= length:
            raise ValueError(
                f"[{start_bp}, {end_bp}) of {self.names[contig]!r}: wanted 0 <= start_bp <= end_bp <= {length}"
            )
        return start_bp, end_bp

    def _find(self, name: str) -> int:
        return self.contigs.find(name)


def _path_of(given: Any) -> Path:
    """Raises TypeError for an open file of another library, with the name of its file."""
    name = getattr(given, "filename", None)
    if not isinstance(given, (str, os.PathLike)) and name is not None:
        shown = name.decode(errors="replace") if isinstance(name, bytes) else name
        raise TypeError(f"Genome.open takes a path, not {type(given).__name__}: wanted {str(shown)!r}")
    return Path(given)


def _opened_again(path: Path, names: list[str], length_bp: np.ndarray, device: str) -> Genome:
    """Opens a pickled genome again. Raises GenomeFileError if the file now has other contigs."""
    genome = Genome.open(path)
    if genome.names != names or not np.array_equal(genome.lengths, length_bp):
        raise GenomeFileError(
            f"{path}: its contigs are not those of the genome that was pickled: was it replaced?"
        )
    return genome if device == "cpu" else genome.to(device)


def _host_genome(packed: np.ndarray, *rest: np.ndarray) -> HostGenome:
    return HostGenome(packed, *(np.ascontiguousarray(array, np.int64) for array in rest))


def _clipped(blocks: np.ndarray, start_bp: int, end_bp: int) -> list[list[int]]:
    """The blocks that overlap [start_bp, end_bp), clipped to it, relative to start_bp."""
    begin = np.searchsorted(blocks[:, 1], start_bp, side="right")
    end = np.searchsorted(blocks[:, 0], end_bp, side="left")
    return (np.clip(blocks[begin:end], start_bp, end_bp) - start_bp).tolist()
