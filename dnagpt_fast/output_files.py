"""Writes all files of the package: a file gets its name only when it is complete; streams are written directly.

A regular file or a folder is made in a temporary folder next to its target, flushed to disk and renamed. Until then an
existing output of the same name does not change; after an error, a signal or a full disk nothing of the new one is
left. The temporary folder of a killed process is removed by the next process that writes into the same folder: it has a
locked file, and the kernel releases the lock when the process dies. Symbolic links are followed and kept. A new file
has the mode of the umask, a replaced file keeps its mode. Devices, pipes, `-` and `/dev/stdout` cannot be renamed: they
are written to directly.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

if TYPE_CHECKING:
    import numpy as np

LINE_BP = 60
STDOUT = "-"
# A temporary folder: `.` and eight letters before this ending. Short, so that the name of a target always fits.
ENDING = ".partial"
LOCK = ".in-use"
# A temporary folder is locked microseconds after it is made; a folder without a lock is not removed before this age.
SECONDS_TO_LOCK = 60.0
# Errors of writing that have no file name.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


def is_stream(path: str | Path) -> bool:
    """True for `-`, for an open file of this process under a name such as /dev/stdout or /dev/fd/3, and for what is
    there and is neither a regular file nor a folder: a device, a pipe, a socket."""
    if str(path) == STDOUT or _descriptor(path) is not None:
        return True
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def refuse_inputs(output: str | Path | None, *inputs: str | Path | None) -> None:
    """Raises ValueError if writing `output` would replace one of the files that are read; None is no file. Raises
    OSError for a name that no file can have, or a folder that cannot be searched."""
    if output is None or is_stream(output):
        return
    try:
        os.stat(output)
    except FileNotFoundError:
        return
    for path in inputs:
        if path and os.path.exists(path) and os.path.samefile(output, path):
            raise ValueError(f"{output}: the output would replace its own input; write to another file")


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary path with the same file name, for a file that the block makes; it is renamed to `path` at the end.

    For libraries that need a path. For a stream, the complete file is copied to it. Raises OSError with the name
    `path`: a missing folder, a full disk, missing permission.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory() as room:
            temporary = Path(room) / (Path(path).name or "output")
            yield temporary
            with _stream(path) as stream, open(temporary, "rb") as made:
                shutil.copyfileobj(made, stream)
        return
    with _renamed(path) as temporary:
        yield temporary


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """An empty temporary folder that is renamed to `path` at the end. Raises FileExistsError if `path` exists."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "is there already", str(path))
    with _renamed(path) as temporary:
        temporary.mkdir()
        yield temporary


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write from beginning to end: as `whole`, but streams are written directly."""
    if is_stream(path):
        with _stream(path) as stream:
            yield stream
        return
    with whole(path) as temporary, open(temporary, "xb") as file:
        yield file


def write_text(path: str | Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode(errors="surrogateescape"))


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def flush(path: str | Path) -> None:
    """Returns when a file, or the list of names in a folder, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems cannot flush folders.
        if error.errno not in NO_LOCKS or not os.path.isdir(path):
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool | None:
    """Locks an open file for this process until it is closed or the process dies. False where another process holds
    the lock, on any host that shares the file system; None where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None
    return True


@contextmanager
def _renamed(path: str | Path) -> Iterator[Path]:
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "wanted a file, but this is a folder", str(path))
    with _temporary_folder(target.parent, path) as room, _named(path, room):
        temporary = room / target.name
        yield temporary
        asked = target if target.exists() else room / LOCK
        mode = asked.stat().st_mode & 0o777
        for made in _files(temporary):
            # Some libraries ignore the umask and write files that only their owner may read.
            if made.is_file() and made.stat().st_mode & 0o777 != mode:
                made.chmod(mode)
            flush(made)
        os.replace(temporary, target)
        with _named(path, target.parent):
            flush(target.parent)


def _files(path: Path) -> Iterator[Path]:
    """A file; or all files and folders in a folder, and the folder."""
    if path.is_dir():
        yield from sorted(path.rglob("*"))
    yield path


@contextmanager
def errors_name(path: str | Path) -> Iterator[None]:
    """Every OSError of the block names `path`; those of an open file name none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def _named(path: str | Path, room: Path | None = None) -> Iterator[None]:
    """Turns errors about files of the temporary folder `room`, and a full disk without a name, into errors about
    `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            ours = error.errno in DISK_FULL
        else:
            ours = room is not None and str(error.filename).startswith(str(room))
        if not ours:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def _temporary_folder(parent: Path, path: str | Path) -> Iterator[Path]:
    """A locked folder in `parent`; `path` is for messages."""
    sweep(parent)
    while True:
        # named before it exists: whenever a signal comes, the folder is removed
        room, ours, handle = parent / f".{secrets.token_hex(4)}{ENDING}", True, None
        try:
            try:
                with _named(path, parent):
                    os.mkdir(room, 0o700)
                    handle = os.open(room / LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
            except FileExistsError:  # another process has this name
                ours = False
                continue
            # Another process may have removed the folder before it was locked.
            if try_lock(handle) is False or not (room / LOCK).exists():
                continue
            yield room
            return
        finally:
            try:
                if ours:
                    shutil.rmtree(room, ignore_errors=True)
            finally:
                if ours and room.exists():  # a signal came during the removal
                    shutil.rmtree(room, ignore_errors=True)
                if handle is not None:
                    os.close(handle)


def sweep(folder: Path) -> None:
    """Removes the temporary folders of processes that have died, without a message."""
    with contextlib.suppress(OSError):
        for room in folder.glob(f".*{ENDING}"):
            with contextlib.suppress(OSError):
                _sweep_one(room)


def _sweep_one(room: Path) -> None:
    if not re.fullmatch(r"\.[a-z0-9_]{8}", room.name.removesuffix(ENDING)):
        return
    try:
        handle = os.open(room / LOCK, os.O_RDWR)
    except FileNotFoundError:
        if time.time() - room.stat().st_mtime > SECONDS_TO_LOCK:
            shutil.rmtree(room)
        return
    try:
        if try_lock(handle):
            shutil.rmtree(room)
    finally:
        os.close(handle)


def _descriptor(path: str | Path) -> int | None:
    """The number of the open file of this process that the path names, or None."""
    at = os.fspath(path)
    for _ in range(40):  # as many links as the kernel follows
        folder, name = os.path.split(at)
        if name.isdigit() and os.path.realpath(folder) == f"/proc/{os.getpid()}/fd":
            return int(name)
        if not os.path.islink(at):
            return None
        at = os.path.join(folder, os.readlink(at))
    return None


@contextmanager
def _stream(path: str | Path) -> Iterator[BinaryIO]:
    number = 1 if str(path) == STDOUT else _descriptor(path)
    if number == 1:
        sys.stdout.flush()
    with (
        _named(path),
        open(path, "wb") if number is None else os.fdopen(os.dup(number), "wb") as stream,
    ):
        yield stream


class _OutputFile:
    """A file that is written record by record and appears when the `with` block ends without an error."""

    # Whether earlier parts are written again, which is impossible in a stream.
    _rewrites = False
    # Whether each record is flushed to the system at once; records of a stream always are.
    _flushes = False

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._finished = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._rewrites:
                temporary = stack.enter_context(whole(self.path))
                self._file: BinaryIO = stack.enter_context(open(temporary, "xb"))
            else:
                self._file = stack.enter_context(whole_file(self.path))
                self._flushes = self._flushes or is_stream(self.path)
            self._begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                raise error
            self.finish()

    def finish(self) -> None:
        """Completes the file after the last record and waits for the disk. The end of the block calls it. Call it
        earlier if two files must appear together, so that a full disk is noticed before either has its name."""
        if self._finished:
            return
        self._finished = True
        with _named(self.path):
            self._complete()
            self._file.flush()
            if not is_stream(self.path):
                os.fsync(self._file.fileno())

    def _begin(self) -> None:
        """Writes what comes before the first record."""

    def _complete(self) -> None:
        """Writes what is known only after the last record."""

    def _put(self, data: bytes) -> None:
        with _named(self.path):
            self._file.write(data)
            if self._flushes:
                self._file.flush()


def fasta_record(title: str, bases: str) -> str:
    lines = [bases[i : i + LINE_BP] for i in range(0, len(bases), LINE_BP)]
    return "\n".join([f">{title}", *lines, ""])


class FastaFile(_OutputFile):
    """`with FastaFile(path) as out: out.write("name more words", "ACGT")`; each record is flushed at once."""

    _flushes = True

    def write(self, title: str, bases: str) -> None:
        """Raises ValueError for a title of more than one line."""
        if "\n" in title or "\r" in title:
            raise ValueError(f"FASTA title {title!r}: wanted one line")
        self._put(fasta_record(title, bases).encode("ascii"))


class TextFile(_OutputFile):
    """`with TextFile(path) as out: out.write("one line")`"""

    def write(self, line: str) -> None:
        self._put(f"{line}\n".encode(errors="surrogateescape"))


class VectorFile(_OutputFile):
    """Writes float32 arrays of one shape to .npy or .safetensors (tensor `embeddings`), without keeping them in memory.

    The header is written last, into space reserved for it. Raises ValueError for another file ending.
    """

    HEAD = 4096
    _rewrites = True

    def __init__(self, path: str | Path) -> None:
        self.rows = 0
        self.shape: tuple[int, ...] | None = None
        self.kind = Path(path).suffix
        if self.kind not in (".npy", ".safetensors"):
            raise ValueError(f"{path}: wanted a name that ends in .npy or .safetensors")
        super().__init__(path)

    def _begin(self) -> None:
        self._put(bytes(self.HEAD))

    def write(self, vectors: "Iterable[np.ndarray]") -> None:
        """Raises ValueError for an array of another shape."""
        for vector in vectors:
            if self.shape is None:
                self.shape = vector.shape
            if vector.shape != self.shape:
                raise ValueError(f"a vector has shape {vector.shape}: wanted {self.shape}")
            self._put(vector.astype("<f4").tobytes())
            self.rows += 1

    def _complete(self) -> None:
        shape = (self.rows, *(self.shape or (0,)))
        self._file.seek(0)
        self._file.write(
            _npy_head(shape, self.HEAD) if self.kind == ".npy" else _safetensors_head(shape, self.HEAD)
        )


def _npy_head(shape: tuple[int, ...], size: int) -> bytes:
    """NumPy format 1.0, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html"""
    text = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
    room = size - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n"


def _safetensors_head(shape: tuple[int, ...], size: int) -> bytes:
    """https://huggingface.co/docs/safetensors: 8 bytes of length, then JSON padded with spaces."""
    end = 4 * math.prod(shape)
    text = json.dumps(
        {"embeddings": {"dtype": "F32", "shape": list(shape), "data_offsets": [0, end]}}
    ).encode()
    room = size - 8
    return room.to_bytes(8, "little") + text.ljust(room)
