"""Reads UCSC .2bit files by memory mapping and writes them
(https://genome.ucsc.edu/FAQ/FAQformat.html#format7).

Header: signature, version (0: 32-bit, 1: 64-bit offsets in the index), sequence count, reserved 0; either byte order.
Index: name length byte, name, offset, per sequence. Record: dnaSize, nBlockCount, starts[], sizes[], maskBlockCount,
starts[], sizes[], reserved 0, packed bases. All numbers of a record are 32 bits wide: a contig has under 2^32 bases.
"""

import mmap
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dnagpt_fast.genome.records import GenomeFileError, PackedRecord
from dnagpt_fast.output_files import is_stream, whole_file
from dnagpt_fast.packed import BASES_PER_BYTE

SIGNATURE = 0x1A412743
HEADER_BYTES = 16
LONGEST_CONTIG = 2**32 - 1
LONGEST_NAME = 255
MASKS_AT_ONCE = 1 << 20
SPOOL_BYTES = (
    256 << 20
)  # packed records are kept in memory up to this size, then in an unnamed file beside the target


@dataclass(frozen=True)
class TwoBit:
    """A mapped .2bit file of C contigs and M N-blocks. Mask blocks are read from the file only when they are
    needed.

    data            uint8 (file bytes,), copy-on-write: torch accepts it, and the file never changes
    byte_offset     int64 (C,): start of each contig's packed bases in `data`
    n_block_index   int64 (C + 1,); n_blocks int64 (M, 2) [start_bp, end_bp)
    mask_offset     int64 (C,): start of each contig's mask block starts in `data`; mask_count int64 (C,)
    mapped          the memory map under `data`; None for an empty file
    """

    path: Path
    data: np.ndarray
    word: np.dtype
    names: list[str]
    length_bp: np.ndarray
    byte_offset: np.ndarray
    n_block_index: np.ndarray
    n_blocks: np.ndarray
    mask_offset: np.ndarray
    mask_count: np.ndarray
    mapped: mmap.mmap | None = None

    def mask_blocks(self, contig: int) -> np.ndarray:
        """Soft-masked blocks of one contig, int64 (n, 2). Raises GenomeFileError unless sorted, disjoint and inside."""
        begin, count = self.mask_offset[contig : contig + 1], self.mask_count[contig : contig + 1]
        return _blocks(self, "mask", np.zeros(1, np.int64) + contig, begin, count)

    def masked_bp(self) -> np.ndarray:
        """Number of soft-masked bases of every contig, int64 (C,), read in groups of contigs. Raises as
        `mask_blocks`."""
        found = np.zeros(len(self.names), np.int64)
        ends = np.cumsum(self.mask_count)
        first = 0
        while first < len(found):
            before = ends[first] - self.mask_count[first]
            stop = max(first + 1, int(np.searchsorted(ends, before + MASKS_AT_ONCE, side="right")))
            some = slice(first, stop)
            contig, count = np.arange(first, stop), self.mask_count[some]
            blocks = _blocks(self, "mask", contig, self.mask_offset[some], count)
            sums = np.concatenate([[0], np.cumsum(blocks[:, 1] - blocks[:, 0])])
            found[some] = sums[np.cumsum(count)] - sums[np.cumsum(count) - count]
            first = stop
        return found

    def expect_random_reads(self) -> None:
        """Switches off the system's read-ahead for this file. It reads 128 kB to several MB for a window of
        800 bytes, which makes every window slow when the corpus is larger than the memory."""
        if self.mapped is not None and hasattr(mmap, "MADV_RANDOM"):
            self.mapped.madvise(mmap.MADV_RANDOM)


def is_twobit(start: bytes) -> bool:
    """Whether the first bytes of a file are a .2bit signature, in either byte order."""
    return start[:4] in (struct.pack("<I", SIGNATURE), struct.pack(">I", SIGNATURE))


def read_twobit(path: str | Path) -> TwoBit:
    """Maps the file and checks everything except the contents of the mask blocks; no base is copied.

    Raises GenomeFileError with the offset for a file that is truncated, corrupt or of another format.
    """
    path = Path(path)
    data, mapped = _map(path)
    if len(data) < HEADER_BYTES:
        raise GenomeFileError(f"{path}: {len(data)} bytes, less than the {HEADER_BYTES} of a .2bit header")
    if not is_twobit(data[:4].tobytes()):
        raise GenomeFileError(
            f"{path}: offset 0: {data[:4].tobytes().hex()} is not a .2bit signature (wanted 4327411a or 1a412743)"
        )
    word = np.dtype("<u4" if data[0] == SIGNATURE & 0xFF else ">u4")
    version, count, reserved = data[4:HEADER_BYTES].view(word).tolist()
    if version not in (0, 1):
        raise GenomeFileError(f"{path}: offset 4: .2bit version {version}: wanted 0 or 1")
    if reserved:
        raise GenomeFileError(f"{path}: offset 12: reserved word {reserved:#x}: wanted 0")
    offset = np.dtype(f"{word.byteorder}u{8 if version else 4}")
    if count * (2 + offset.itemsize) > len(data) - HEADER_BYTES:
        raise GenomeFileError(
            f"{path}: offset 8: {count:,} sequences do not fit into a file of {len(data):,} bytes"
        )
    names, record, index_end = _read_index(path, data, count, offset)
    return replace(_read_records(path, data, word, names, record, index_end), mapped=mapped)


def _map(path: Path) -> tuple[np.ndarray, mmap.mmap | None]:
    """The file as uint8, mapped privately and writable, as torch requires; without reserved swap, so any size
    fits."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return np.empty(0, np.uint8), None
        if sys.platform == "linux":
            no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)
            mapped = mmap.mmap(
                file.fileno(), size, mmap.MAP_PRIVATE | no_reserve, mmap.PROT_READ | mmap.PROT_WRITE
            )
        else:
            mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    return np.frombuffer(mapped, np.uint8), mapped


def _read_index(
    path: Path, data: np.ndarray, count: int, offset: np.dtype
) -> tuple[list[str], np.ndarray, int]:
    """Names, record offsets int64 (C,), and the end of the index."""
    longest = min(len(data), HEADER_BYTES + count * (1 + LONGEST_NAME + offset.itemsize))
    index = data[HEADER_BYTES:longest].tobytes()
    place = 0
    spots = np.empty(count, np.int64)
    raw_names: list[bytes] = []
    for contig in range(count):
        if place + 1 + offset.itemsize > len(index):
            break
        spots[contig] = name_end = place + 1 + index[place]
        raw_names.append(index[place + 1 : name_end])
        place = name_end + offset.itemsize
    if len(raw_names) < count or place > len(index):
        raise GenomeFileError(
            f"{path}: offset {len(data):,}: the file ends inside the index of {count:,} sequences"
        )
    bytes_of = np.frombuffer(index, np.uint8)[spots[:, None] + np.arange(offset.itemsize)]
    record = bytes_of.view(offset).reshape(-1).astype(np.uint64)
    end = HEADER_BYTES + place
    wrong = (record < end) | (record > max(0, len(data) - 16))
    if wrong.any():
        contig = int(np.argmax(wrong))
        raise GenomeFileError(
            f"{path}: offset {HEADER_BYTES + spots[contig]:,}: sequence {contig} begins at {record[contig]:,}: "
            f"wanted {end:,}..{len(data) - 16:,}, after the index and inside the file"
        )
    names: list[str] = []
    first: dict[str, int] = {}
    for contig, raw in enumerate(raw_names):
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            wrong_name = f"{raw!r}, which is not text"
        else:
            names.append(name)
            if name and name.isprintable() and first.setdefault(name, contig) == contig:
                continue
            wrong_name = (
                f"{name!r} of sequence {first[name]}"
                if name in first
                else f"{name!r}: wanted a printable one"
            )
        raise GenomeFileError(
            f"{path}: offset {HEADER_BYTES + spots[contig] - len(raw):,}: sequence {contig} has the name {wrong_name}"
        )
    return names, record.astype(np.int64), end


def _read_records(
    path: Path, data: np.ndarray, word: np.dtype, names: list[str], record: np.ndarray, index_end: int
) -> TwoBit:
    """Reads all records together: each step reads one number of every contig."""
    size = len(data)

    def inside(end: np.ndarray, what: str, at: np.ndarray) -> None:
        if (end > size).any():
            contig = int(np.argmax(end > size))
            raise GenomeFileError(
                f"{path}: offset {at[contig]:,}: {what} of {names[contig]!r} would end at {end[contig]:,}, "
                f"but the file has {size:,} bytes"
            )

    length = _words(data, record, word)
    n_count = _words(data, record + 4, word)
    mask_at = record + 8 + 8 * n_count
    inside(mask_at + 8, "the N blocks", record + 4)
    mask_count = _words(data, mask_at, word)
    reserved_at = mask_at + 4 + 8 * mask_count
    inside(reserved_at + 4, "the mask blocks", mask_at)
    reserved = _words(data, reserved_at, word)
    if reserved.any():
        contig = int(np.argmax(reserved != 0))
        raise GenomeFileError(
            f"{path}: offset {reserved_at[contig]:,}: reserved word {reserved[contig]:#x}: wanted 0"
        )
    packed_at = reserved_at + 4
    end = packed_at + (length + BASES_PER_BYTE - 1) // BASES_PER_BYTE
    inside(end, "the packed bases", record)
    order = np.argsort(record, kind="stable")
    overlap = record[order][1:] < end[order][:-1]
    if overlap.any():
        left, right = order[int(np.argmax(overlap)) :][:2]
        raise GenomeFileError(
            f"{path}: offset {record[right]:,}: the record of {names[right]!r} begins inside that of {names[left]!r}, "
            f"which ends at {end[left]:,}"
        )
    index = np.concatenate([[0], np.cumsum(n_count)]).astype(np.int64)
    empty = np.empty((0, 2), np.int64)
    twobit = TwoBit(path, data, word, names, length, packed_at, index, empty, mask_at + 4, mask_count)
    n_blocks = _blocks(twobit, "N", np.arange(len(names)), record + 8, n_count)
    return TwoBit(path, data, word, names, length, packed_at, index, n_blocks, mask_at + 4, mask_count)


def _words(data: np.ndarray, at: np.ndarray, word: np.dtype) -> np.ndarray:
    """The 32-bit numbers at these byte offsets, which need not be aligned, as int64."""
    return data[at[:, None] + np.arange(4)].view(word).reshape(-1).astype(np.int64)


def _blocks(
    twobit: TwoBit, kind: str, contig: np.ndarray, begin: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """starts[] and sizes[] of these contigs -> [start_bp, end_bp), int64 (sum of count, 2), checked."""
    owner = np.repeat(np.arange(len(contig)), count)
    first = np.cumsum(count) - count
    at = begin[owner] + 4 * (np.arange(len(owner)) - first[owner])
    start = _words(twobit.data, at, twobit.word)
    size = _words(twobit.data, at + 4 * count[owner], twobit.word)
    end = start + size
    wrong = (size == 0) | (end > twobit.length_bp[contig][owner])
    wrong[1:] |= (start[1:] < end[:-1]) & (owner[1:] == owner[:-1])
    if wrong.any():
        block = int(np.argmax(wrong))
        which = contig[owner[block]]
        raise GenomeFileError(
            f"{twobit.path}: offset {at[block]:,}: {kind} block {start[block]:,}..{end[block]:,} of "
            f"{twobit.names[which]!r}: wanted sorted, disjoint blocks inside its {twobit.length_bp[which]:,} bases"
        )
    return np.stack([start, end], axis=1)


@dataclass(frozen=True)
class Written:
    """What `write_twobit` wrote."""

    contigs: int
    bases: int
    file_bytes: int
    version: int


def write_twobit(path: str | Path, records: Iterable[PackedRecord], *, version: int | None = None) -> Written:
    """Writes the contigs in UCSC's layout, little-endian. version: None: 1 if an offset exceeds 32 bits,
    otherwise 0.

    Memory: one contig and at most SPOOL_BYTES of packed data. The file is complete or does not appear under
    its name. Raises ValueError for no contigs, a duplicate name, a name or contig too long for the format,
    and the errors of `records`.
    """
    path = Path(path)
    # The folder of a stream, such as /dev, has no space for a file.
    spool_folder = None if is_stream(path) else str(path.parent)
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES, dir=spool_folder) as body:
        names: dict[bytes, None] = {}
        sizes: list[int] = []
        bases = 0
        for record in records:
            name = record.name.encode()
            if not 1 <= len(name) <= LONGEST_NAME:
                raise ValueError(
                    f"contig name {record.name[:80]!r} has {len(name)} bytes: .2bit takes 1..{LONGEST_NAME}"
                )
            if record.length_bp > LONGEST_CONTIG:
                raise ValueError(
                    f"contig {record.name!r} has {record.length_bp:,} bases: .2bit takes {LONGEST_CONTIG:,}"
                )
            head = _record_head(record)
            body.write(head)
            body.write(record.packed.data)
            if name in names:
                raise ValueError(f"contig {record.name!r} comes from two files: .2bit names are unique")
            names[name] = None
            sizes.append(len(head) + len(record.packed))
            bases += record.length_bp
        if not names:
            raise ValueError(f"{path}: no contigs to write")
        version, index = _index(list(names), sizes, version)
        body.seek(0)
        with whole_file(path) as file:
            file.write(struct.pack("<IIII", SIGNATURE, version, len(names), 0))
            file.write(index)
            shutil.copyfileobj(body, file, 1 << 18)
        file_bytes = HEADER_BYTES + len(index) + sum(sizes)
    return Written(len(names), bases, file_bytes, version)


def _record_head(record: PackedRecord) -> bytes:
    """What precedes the packed bases of a contig; as one piece, since a write takes longer than a short contig."""
    parts = [struct.pack("<I", record.length_bp)]
    for blocks in (record.n_blocks, record.mask_blocks):
        parts.append(struct.pack("<I", len(blocks)))
        if len(blocks):
            parts.append(blocks[:, 0].astype("<u4").tobytes())
            parts.append((blocks[:, 1] - blocks[:, 0]).astype("<u4").tobytes())
    parts.append(bytes(4))
    return b"".join(parts)


def _index(names: list[bytes], sizes: list[int], version: int | None) -> tuple[int, bytes]:
    """(version, index bytes): with 32-bit offsets if the last one fits."""
    starts = np.cumsum([0, *sizes[:-1]])
    name_bytes = sum(map(len, names))
    if version is None:
        version = int(HEADER_BYTES + name_bytes + 5 * len(names) + starts[-1] >= 2**32)
    offset = "<Q" if version else "<I"
    begin = HEADER_BYTES + name_bytes + (1 + struct.calcsize(offset)) * len(names)
    parts = []
    for name, start in zip(names, starts.tolist(), strict=True):
        parts += [bytes([len(name)]), name, struct.pack(offset, begin + start)]
    return version, b"".join(parts)
