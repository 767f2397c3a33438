"""Files that appear under their name only when whole: written at once, or growing record by record."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

LINE_BP = 60


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, of the same suffix, for a file or a folder: renamed to `path` at the end, gone
    after an error."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


class _Whole:
    """A file written under a temporary name, renamed at the end; gone after an error."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._file: BinaryIO = open(self._temporary, "xb")  # noqa: SIM115 closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
            if kind is not None:
                self._temporary.unlink(missing_ok=True)
        if kind is None:
            os.replace(self._temporary, self.path)

    def _finish(self) -> None:
        """What is left to write once all records are in."""


def fasta_record(title: str, bases: str) -> str:
    lines = [bases[i : i + LINE_BP] for i in range(0, len(bases), LINE_BP)]
    return "\n".join([f">{title}", *lines, ""])


class FastaFile(_Whole):
    """`with FastaFile(path) as out: out.write("name more words", "ACGT")`; each record is flushed as it comes."""

    def write(self, title: str, bases: str) -> None:
        """Raises ValueError for a title of more than one line."""
        if "\n" in title or "\r" in title:
            raise ValueError(f"FASTA title {title!r}: wanted one line")
        self._file.write(fasta_record(title, bases).encode("ascii"))
        self._file.flush()


class TextFile(_Whole):
    """`with TextFile(path) as out: out.write("one line")`"""

    def write(self, line: str) -> None:
        self._file.write(f"{line}\n".encode())


class VectorFile(_Whole):
    """float32 rows of one width into .npy or .safetensors (tensor `embeddings`), without holding them.

    The head of the file is written last, into room kept for it. Raises ValueError for another file ending.
    """

    HEAD = 4096

    def __init__(self, path: str | Path) -> None:
        self.rows = 0
        self.width: int | None = None
        self.kind = Path(path).suffix
        if self.kind not in (".npy", ".safetensors"):
            raise ValueError(f"{path}: wanted a name that ends in .npy or .safetensors")
        super().__init__(path)
        self._file.write(bytes(self.HEAD))

    def write(self, vectors: Iterable[np.ndarray]) -> None:
        """Raises ValueError for a vector of another width."""
        for vector in vectors:
            if self.width is None:
                self.width = len(vector)
            if vector.shape != (self.width,):
                raise ValueError(f"a vector has shape {vector.shape}: wanted ({self.width},)")
            self._file.write(np.ascontiguousarray(vector, "<f4").tobytes())
            self.rows += 1

    def _finish(self) -> None:
        shape = (self.rows, self.width or 0)
        self._file.seek(0)
        self._file.write(
            _npy_head(shape, self.HEAD) if self.kind == ".npy" else _safetensors_head(shape, self.HEAD)
        )


def _npy_head(shape: tuple[int, int], size: int) -> bytes:
    """NumPy format 1.0, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html"""
    text = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
    room = size - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n"


def _safetensors_head(shape: tuple[int, int], size: int) -> bytes:
    """https://huggingface.co/docs/safetensors: 8 bytes of length, then JSON padded with spaces."""
    end = shape[0] * shape[1] * 4
    text = json.dumps(
        {"embeddings": {"dtype": "F32", "shape": list(shape), "data_offsets": [0, end]}}
    ).encode()
    room = size - 8
    return room.to_bytes(8, "little") + text.ljust(room)


@contextmanager
def whole_file(path: Path) -> Iterator:
    """A binary file that appears under `path` only when the block ends well: temporary name, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all, so that a reader never sees half a file."""
    with whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
