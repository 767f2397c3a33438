"""Sequences as users hold them: text, ranges of a genome, arrays, and those of pandas, Biopython, pyfaidx and pysam."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from dnagpt_fast.ops.sequence_text import letters_of_range
from dnagpt_fast.packed import PackedRange

Source = str | PackedRange
"""A sequence: text, or a range of a packed genome."""

# str() of any object is some text: only these are sequences by it. Seq and DNA have the first attribute, pyfaidx's
# FastaRecord has the second; its Fasta and Biopython's readers, which hold many sequences, have neither.
_PACKAGES, _MARKS = ("Bio", "pyfaidx", "skbio"), ("reverse_complement", "long_name")
WANTED = (
    "a str, bytes, an array of letters, a range of a genome, or a sequence of Biopython, pyfaidx or pysam"
)


def sequence_of(given: Any) -> Source:
    """A sequence as text or as a range of a genome. Raises TypeError for what is no sequence, ValueError for letters
    that are not ASCII.

    >>> sequence_of(b"ACGT"), sequence_of(np.array(["A", "C", "G"])), sequence_of(np.frombuffer(b"TT", np.uint8))
    ('ACGT', 'ACG', 'TT')
    """
    if isinstance(given, (str, PackedRange)):
        return given
    if isinstance(given, (bytes, bytearray)):
        return _ascii(bytes(given))
    if isinstance(given, np.ndarray):
        return _of_array(given)
    for name in ("seq", "sequence"):  # SeqRecord and pyfaidx.Sequence, pysam's FastxRecord
        inner = getattr(given, name, None)
        if isinstance(inner, str) or _is_sequence_object(inner):
            return str(inner)
    if _is_sequence_object(given):
        return str(given)
    raise TypeError(f"{type(given).__name__} {str(given)[:40]!r}: wanted {WANTED}")


def text_of(given: Any) -> str:
    """A sequence as text; a range of a genome is unpacked. Raises as `sequence_of` does."""
    source = sequence_of(given)
    return letters_of_range(source) if isinstance(source, PackedRange) else source


def sequences_of(given: Any, what: str = "sequences") -> Iterator[tuple[int, Source]]:
    """(row, sequence) of each sequence of a list, array, column or iterator, one at a time.

    Raises TypeError at once for what holds no list of sequences; while the rows are read, errors name their row.
    """
    check_is_list(given, what)
    return _rows(given, what)


def _rows(given: Iterable[Any], what: str) -> Iterator[tuple[int, Source]]:
    for row, one in enumerate(given):
        with naming_row(row, what):
            source = sequence_of(one)
        yield row, source


@contextmanager
def naming_row(row: int, what: str = "sequences") -> Iterator[None]:
    """A ValueError or TypeError inside names the row."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"{what}[{row}]: {error}") from error


def check_is_list(given: Any, what: str = "sequences") -> None:
    """Raises TypeError for one sequence where a list of them is wanted: its letters would be read as sequences. Also
    for a mapping and a table, which would give their names."""
    kind = type(given).__name__
    if isinstance(given, (Mapping, dict)) or (hasattr(given, "iloc") and getattr(given, "ndim", 1) != 1):
        wanted = "one of its columns" if hasattr(given, "iloc") else "its values, such as `given.values()`"
        raise TypeError(f"{what} is one {kind}, which would give names: wanted {wanted}")
    if isinstance(given, np.ndarray) and given.ndim != 1:
        raise TypeError(
            f"{what} is an array of shape {given.shape}: wanted one dimension, a sequence in each place"
        )
    letters = isinstance(given, np.ndarray) and (
        given.dtype.kind in "iu" or given.dtype.str[1:] in ("S1", "U1")
    )
    if isinstance(given, (str, bytes, bytearray, PackedRange)) or letters or _is_sequence_object(given):
        shown = f", such as [{given[:20]!r}]" if isinstance(given, (str, bytes, bytearray)) else ""
        raise TypeError(f"{what} is one {kind}: wanted a list of them{shown}")
    if not isinstance(given, Iterable):
        raise TypeError(f"{what} is {kind} {str(given)[:40]!r}: wanted a list of sequences")


def _of_array(given: np.ndarray) -> str:
    """One text, or a text of letters (n,): of type str, bytes, or their ASCII codes as uint8."""
    if given.ndim == 0 and given.dtype.kind in "USO":
        return str(sequence_of(given.item()))
    if given.ndim == 1 and given.dtype == np.uint8:
        return _ascii(given.tobytes())
    if given.ndim == 1 and given.dtype.kind in "US" and (not len(given) or np.char.str_len(given).max() == 1):
        return str(sequence_of("".join(given) if given.dtype.kind == "U" else given.tobytes()))
    raise TypeError(
        f"an array of {given.dtype} {given.shape}: wanted letters as text, or their codes as uint8, in one dimension"
    )


def _ascii(codes: bytes) -> str:
    if not all(32 < code < 127 for code in codes):
        at = next(i for i, code in enumerate(codes) if not 32 < code < 127)
        raise ValueError(f"byte {at} is {codes[at]}: wanted letters in ASCII")
    return codes.decode("ascii")


def _is_sequence_object(given: Any) -> bool:
    return type(given).__module__.split(".")[0] in _PACKAGES and any(
        hasattr(type(given), mark) for mark in _MARKS
    )
