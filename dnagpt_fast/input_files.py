"""Reads files by their content: plain or gzip, with or without a byte-order mark, from a disk or a pipe.

The name of a file does not decide how it is read: browsers decompress `.gz` and keep the name, and servers may compress
a file without changing its name.
"""

import errno
import gzip
import hashlib
import io
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, cast

GZIP_MAGIC = b"\x1f\x8b"
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# File types that are not supported, recognised by their first bytes.
_FOREIGN = {
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
    b"PK\x03\x04": "a .zip or .xlsx file",
    b"\xd0\xcf\x11\xe0": "an .xls file",
    b"%PDF": "a PDF",
}
_PACKED_SUFFIXES = (".gz", ".bgz", ".bgzf")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANKS = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + "\ufeff\u200b\u200c\u200d\u2060"
# Python's int also accepts `1_000` and digits of other alphabets.
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


class InputFileError(ValueError):
    """Input that cannot be used. The message names the file, the line, record or offset, what was found and what was
    wanted."""


def inner_suffix(path: str | Path) -> str:
    """The suffix for the type of a file, in lower case: `.vcf` for `x.VCF.gz`."""
    path = Path(path)
    return Path(path.stem if path.suffix.lower() in _PACKED_SUFFIXES else path.name).suffix.lower()


def check_file(path: str | Path) -> None:
    """Checks that the path is a file that can be read more than once.

    Raises FileNotFoundError if there is none, InputFileError for a folder or a pipe.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device, which cannot be read twice"
        raise InputFileError(f"{path} is {kind}: wanted a file; write it to one")


def check_regular(path: str | Path) -> None:
    """For files that are part of a folder from an untrusted source: reading a pipe or a device in it might never end.

    Raises FileNotFoundError, IsADirectoryError, and InputFileError for a pipe, device or socket.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise InputFileError(f"{path} is a pipe or a device: wanted a file")


@contextmanager
def open_content(path: str | Path) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed if it is gzip or BGZF; `peek` shows the first ones.

    Raises InputFileError for other compressions, and for a BGZF file without its end marker. Damage inside a gzip
    stream raises one of GZIP_DAMAGE while reading.
    """
    path = Path(path)
    with _opened(path) as raw:
        start = raw.peek(18)
        if not start.startswith(GZIP_MAGIC):
            _refuse_foreign(path, start)
            yield raw
            return
        if raw.seekable():
            _check_bgzf_end(path, raw, start)
        with gzip.GzipFile(fileobj=raw) as stream:
            try:
                inner = stream.peek(18)
            except GZIP_DAMAGE as error:
                raise gzip_damage(path, "offset 0", error) from error
            if inner.startswith(GZIP_MAGIC):
                raise InputFileError(f"{path}: packed by gzip twice: unpack it once")
            _refuse_foreign(path, inner)
            yield cast(BinaryIO, stream)


watcher: ContextVar[Callable[[Path, object, int, int], None] | None] = ContextVar("watcher", default=None)
"""Called with (path, file, bytes read, bytes of the file) while `open_content` reads files of WATCHED_BYTES or more."""
WATCHED_BYTES = 16 << 20


class _Watched(io.FileIO):
    """A file that reports to `watcher` how far it is read."""

    def __init__(self, path: Path, size: int, report: Callable[[Path, object, int, int], None]) -> None:
        super().__init__(path, "rb")
        self._path, self._size, self._report = path, size, report
        self._shown = 0

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        place = self.tell()
        if abs(place - self._shown) >= WATCHED_BYTES // 16 or (place == self._size != self._shown):
            self._shown = place
            self._report(self._path, self, place, self._size)
        return count


def _opened(path: Path) -> io.BufferedReader:
    report = watcher.get()
    if report is not None and path.is_file() and (size := path.stat().st_size) >= WATCHED_BYTES:
        return io.BufferedReader(_Watched(path, size, report))
    return open(path, "rb")


def is_bcf(path: str | Path) -> bool:
    """Whether a file is BCF, the binary form of VCF. Raises as `open_content` does."""
    with open_content(path) as stream:
        return stream.peek(3).startswith(b"BCF")  # type: ignore[attr-defined]


GZIP_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)


def gzip_damage(path: Path, where: str, error: Exception) -> InputFileError:
    """One of GZIP_DAMAGE, which do not name the file, as an error that does."""
    if isinstance(error, EOFError):
        return InputFileError(f"{path}: {where}: the gzip stream ends early: the file is cut short")
    return InputFileError(f"{path}: {where}: the gzip stream is damaged: {error}")


def text_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line with its end) of a UTF-8 text, or of UTF-16 with a byte-order mark, in one pass.

    Bytes that are not UTF-8 become lone surrogates, so that they are no error in fields that are not used: call
    `readable` on the fields that are used. Raises InputFileError, also for a zero byte, OSError.
    """
    path = Path(path)
    number = 0
    with open_content(path) as stream:
        start = stream.peek(4)  # type: ignore[attr-defined]
        utf16 = start.startswith(UTF16_MARKS)
        text = io.TextIOWrapper(
            stream,
            encoding="utf-16" if utf16 else "utf-8-sig",
            errors="strict" if utf16 else "surrogateescape",
            newline="",
        )
        try:
            for line in text:
                number += 1
                if "\0" in line:
                    raise InputFileError(
                        f"{path}:{number}: a zero byte: this is no text, or UTF-16 without its mark"
                    )
                yield number, line
        except GZIP_DAMAGE as error:
            raise gzip_damage(path, f"after line {number:,}", error) from error
        except UnicodeDecodeError as error:
            raise InputFileError(f"{path}: after line {number:,}: no UTF-16 text: {error}") from error
        text.detach()


def bare(text: str) -> str:
    """The text without blanks, and without the characters of no width from spreadsheets and web pages, at its ends."""
    return text.strip(_BLANKS)


def readable(text: str, where: str, what: str) -> str:
    """The same text. Raises InputFileError if its bytes were not UTF-8."""
    if not text.isascii() and _SURROGATE.search(text):
        raw = text.encode("utf-8", "surrogateescape")
        raise InputFileError(
            f"{where}: {what} {raw!r} is no UTF-8: convert the file, for example by `iconv -f latin1 -t utf-8`"
        )
    return text


def sha256_of(path: str | Path) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_integer(text: str, where: str, what: str) -> int:
    """An integer of at most 18 digits. Raises InputFileError, which begins with `where`."""
    if not _INTEGER.fullmatch(text.strip()):
        raise InputFileError(f"{where}: {what} = {text[:40]!r}: wanted an integer of at most 18 digits")
    return int(text)


def read_whole_text(path: str | Path) -> str:
    """A small file as text with line feeds, read with `text_lines`. Raises InputFileError, OSError."""
    lines = []
    for number, line in text_lines(path):
        lines.append(readable(line.rstrip("\r\n"), f"{path}:{number}", "the line"))
    return "\n".join([*lines, ""])


def _refuse_foreign(path: Path, start: bytes) -> None:
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise InputFileError(
                f"{path} is {what}: unpack or convert it; plain text, gzip and BGZF are read"
            )


def _check_bgzf_end(path: Path, raw: BinaryIO, start: bytes) -> None:
    """Raises InputFileError if the empty last block is missing (SAM spec, 4.1.2): a BGZF file that was cut between two
    blocks is otherwise a valid gzip file."""
    if start[3:4] != b"\x04" or start[12:14] != b"BC":
        return
    size = raw.seek(0, 2)
    raw.seek(max(0, size - len(BGZF_END)))
    end = raw.read()
    raw.seek(0)
    if end != BGZF_END:
        raise InputFileError(
            f"{path}: offset {size:,}: the BGZF end marker is missing: the gzip stream ends early, fetch the file again"
        )
