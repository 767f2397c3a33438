"""Finished rows of numbers of a long job on disk, one for each sequence, so that a killed job can be resumed.

They are in the job's folder (training/job_folder.py), in its file `rows`: the numbers of a row, then a CRC-32 of them
and of the row's index, which tells a row that was not written completely.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

import numpy as np

from dnagpt_fast.training.job_folder import JobFolder, Parts

ROWS = "rows"
_CHECK = struct.Struct("<I")


class RowJournal:
    """The rows of one job, all of one shape and dtype (numpy's name, such as "<f4"). count: finished rows."""

    def __init__(self, folder: JobFolder, shape: Sequence[int], dtype: str) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.count = 0
        self._folder = folder
        self._bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self._parts: Parts = folder.parts(ROWS, self._whole_rows)

    def append(self, row: np.ndarray | Sequence[float]) -> None:
        data = np.ascontiguousarray(row, self.dtype).reshape(self.shape).tobytes()
        self._parts.append(data + _check(data, self.count))
        self.count += 1

    def rows(self) -> Iterator[np.ndarray]:
        """All rows in order; they are read from the file."""
        with open(self._folder.path / ROWS, "rb") as file:
            for _ in range(self.count):
                row = np.frombuffer(file.read(self._bytes), self.dtype).reshape(self.shape)
                file.seek(_CHECK.size, 1)
                yield row

    @property
    def is_empty(self) -> bool:
        return not self.count

    def close(self) -> None:
        self._parts.close()

    def _whole_rows(self, file: BinaryIO) -> int:
        """Counts the rows that are whole, up to the first one that is not; returns their bytes."""
        while len(data := file.read(self._bytes)) == self._bytes:
            if file.read(_CHECK.size) != _check(data, self.count):
                break
            self.count += 1
        return self.count * (self._bytes + _CHECK.size)


def _check(data: bytes, index: int) -> bytes:
    return _CHECK.pack(zlib.crc32(data, index + 1 & 0xFFFFFFFF))


def row_journal(
    folder: JobFolder, job: dict[str, Any], shape: Sequence[int], dtype: str, *, resume: bool
) -> AbstractContextManager[RowJournal]:
    """The journal of a new job, or with `resume` that of the unfinished one, as JobFolder.journal gives it."""
    return folder.journal(job, lambda: RowJournal(folder, shape, dtype), resume=resume)
