"""FASTA text, plain, gzip or BGZF -> packed contigs, one at a time.

A record is a line `>name anything` and lines of sequence letters. Lines end with LF or CRLF; the last line
may lack its end. Blank lines, blanks inside a sequence line, blanks before the name and a UTF-8 byte-order
mark are skipped. The text after the name may be any bytes; it is not kept. Lower case is a soft mask; U is T;
IUPAC letters other than N, and X, become N, and one warning counts them. A record without bases is left out
with a warning; if it is the last one, it is an error, because the file may be truncated. Anything else is an
error that names the line and the offset.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dnagpt_fast.genome.records import GenomeFileError, PackedRecord
from dnagpt_fast.input_files import GZIP_DAMAGE, UTF8_MARK, UTF16_MARKS, gzip_damage, open_content
from dnagpt_fast.ops.fasta_pack import END, INVALID_LETTER, LONE_RETURN, FastaPacker

CHUNK_BYTES = 4 << 20
LONGEST_HEADER = 1 << 20


def read_fasta(path: str | Path) -> Iterator[PackedRecord]:
    """Yields the contigs in file order, with one at a time in memory. The file is read once, so it may be a
    pipe.

    Raises GenomeFileError for bad text, a duplicate name, a record without name, a last record without bases,
    InputFileError for a damaged gzip stream. Warnings at the end count letters that became N and records left
    out.
    """
    path = Path(path)
    with open_content(path) as stream:
        start = stream.peek(4)  # type: ignore[attr-defined]
        if start.startswith(UTF16_MARKS):
            raise GenomeFileError(
                f"{path}: UTF-16 text: wanted FASTA in ASCII or UTF-8; convert it with iconv"
            )
        if start.startswith(UTF8_MARK):
            stream.read(len(UTF8_MARK))
        yield from _Reader(path, stream).records()


class _Reader:
    """The state of one pass over one file."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.stream = stream
        self.text = b""
        self.text_offset = 0  # offset of self.text[0] in the (uncompressed) file
        self.line = 1  # number of the line that is being read
        self.header_line: dict[str, int] = {}
        self.name = ""
        self.packer: FastaPacker | None = None
        self.ambiguous = 0
        self.empty: list[str] = []

    def records(self) -> Iterator[PackedRecord]:
        at_line_start = True
        kept = b""
        while True:
            chunk = self._read()
            final = not chunk
            self.text = kept + chunk
            place = 0
            while place < len(self.text):
                if at_line_start and self.text[place] == ord(">"):
                    end = self.text.find(b"\n", place)
                    if end < 0 and not final:
                        break
                    yield from self._finish()
                    self._start(place, len(self.text) if end < 0 else end)
                    self.line += 1
                    place = len(self.text) if end < 0 else end + 1
                elif self.packer is None:
                    place, at_line_start = self._skip_blank(place, at_line_start)
                else:
                    end, stop = self._feed(self.packer, place, at_line_start, final)
                    if end > place:
                        at_line_start = self.text[end - 1] == ord("\n")
                    place = end
                    if stop == END:  # all text is read, except perhaps a carriage return before its line feed
                        break
            kept = self.text[place:]
            if len(kept) > LONGEST_HEADER:
                raise self._error(
                    place, f"a header line of more than {LONGEST_HEADER:,} bytes: this is no FASTA file"
                )
            self.text_offset += place
            if final:
                break
        if self.packer is not None and not self.packer.length_bp:
            raise self._error(
                len(self.text), f"the file ends in contig {self.name!r}, which has no bases: is it cut short?"
            )
        yield from self._finish()
        if not self.header_line:
            raise GenomeFileError(f"{self.path}: no record: a FASTA file has lines that start with '>'")
        if self.ambiguous:
            letters = "letter" if self.ambiguous == 1 else "letters"
            warnings.warn(
                f"{self.path}: {self.ambiguous:,} {letters} other than A C G T U N became N (IUPAC codes)",
                stacklevel=3,
            )
        if self.empty:
            warnings.warn(
                f"{self.path}: {len(self.empty):,} record(s) without bases were left out, the first is {self.empty[0]}",
                stacklevel=3,
            )

    def _read(self) -> bytes:
        try:
            return self.stream.read(CHUNK_BYTES)
        except GZIP_DAMAGE as error:
            at = f"near uncompressed offset {self.text_offset + len(self.text):,}"
            raise gzip_damage(self.path, at, error) from error

    def _start(self, place: int, end: int) -> None:
        line = self.text[place + 1 : end].removesuffix(b"\r")
        if b"\r" in line:
            raise self._error(place, "a carriage return inside a line: wanted LF or CRLF line ends")
        words = line.split(maxsplit=1)
        if not words:
            raise self._error(place, "a header without a name: wanted '>name'")
        try:
            name = words[0].decode()
        except UnicodeDecodeError:
            raise self._error(place, f"a name that is no UTF-8: {words[0][:40]!r}") from None
        if not name.isprintable():
            raise self._error(place, f"a name with control characters: {words[0][:40]!r}")
        if name in self.header_line:
            raise self._error(
                place,
                f"contig {name!r} appears twice; its first record is on line {self.header_line[name]:,}",
            )
        self.header_line[name] = self.line
        self.name, self.packer = name, FastaPacker()

    def _skip_blank(self, place: int, at_line_start: bool) -> tuple[int, bool]:
        """Skips the blanks before the first header: their end, from `place` on, and whether a line starts
        there."""
        rest = self.text[place:].lstrip(b"\r\n\t ")
        end = len(self.text) - len(rest)
        self.line += self.text.count(b"\n", place, end)
        if end > place:
            at_line_start = self.text[end - 1] == ord("\n")
        if rest and not (at_line_start and rest.startswith(b">")):
            raise self._error(
                end, f"{self.text[end : end + 20]!r} before the first '>' line: this is no FASTA file"
            )
        return end, at_line_start

    def _feed(self, packer: FastaPacker, place: int, at_line_start: bool, final: bool) -> tuple[int, int]:
        before = packer.line_feeds
        end, stop = packer.feed(self.text, place, at_line_start, final)
        self.line += packer.line_feeds - before
        if stop == INVALID_LETTER:
            raise self._error(
                end, f"{self.text[end : end + 1]!r} in contig {self.name!r} is no sequence letter"
            )
        if stop == LONE_RETURN:
            raise self._error(end, "a carriage return inside a line: wanted LF or CRLF line ends")
        return end, stop

    def _finish(self) -> Iterator[PackedRecord]:
        if self.packer is None:
            return
        if not self.packer.length_bp:
            self.empty.append(f"{self.name!r} on line {self.header_line[self.name]:,}")
            return
        self.ambiguous += self.packer.ambiguous
        yield PackedRecord.of(self.name, self.packer)
        self.packer = None

    def _error(self, place: int, what: str) -> GenomeFileError:
        """An error at self.text[place], on the line that is being read."""
        offset = self.text_offset + place
        return GenomeFileError(f"{self.path}: line {self.line:,}, offset {offset:,}: {what}")
