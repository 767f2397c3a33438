"""Contig names, with their usual variants, and ranges such as chr20:100-200."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dnagpt_fast.input_files import InputFileError

_RANGE = re.compile(r"(?P<contig>.+):(?P<start>[0-9,]+)-(?P<end>[0-9,]+)")


class RegionError(InputFileError):
    """A contig or a range that the genome does not have."""


class NoSuchRegion(RegionError, KeyError):
    """A RegionError of a mapping, which is also the KeyError that mappings raise."""

    __str__ = Exception.__str__


def is_browser_line(line: str) -> bool:
    """Whether a line of BED or GFF is for the genome browser: `track name=...`, `browser position ...`.

    A contig may also be called track_2, or even track: the line of an interval has a number as its start.

    >>> is_browser_line('track name="x"'), is_browser_line("track\\t0\\t4"), is_browser_line("track_2\\t0\\t4")
    (True, False, False)
    """
    words = line.split()
    if not words or words[0] not in ("track", "browser"):
        return False
    fields = line.split("\t") if "\t" in line else words
    return not (
        len(fields) > 2 and (fields[1].strip().isdigit() or (fields[3:4] and fields[3].strip().isdigit()))
    )


def contig_key(name: str) -> str:
    """A key that the usual names of one contig share: `20` for `chr20`, `Chr20` and `20`."""
    key = name.lower()
    return key.removeprefix("chr") or key


class ContigNames:
    """Finds the number of a contig in a file by its exact name, otherwise by `contig_key` if that is
    unambiguous."""

    def __init__(self, names: Sequence[str], path: Path) -> None:
        self.names = names
        self.path = path
        self._exact = {name: i for i, name in enumerate(names)}
        self._by_key: dict[str, list[int]] | None = None

    def find(self, name: str, where: str = "") -> int:
        """Number of the contig in `names`. Raises RegionError, which starts with `where`, for none or
        several."""
        if (place := self._exact.get(name)) is not None:
            return place
        if self._by_key is None:
            self._by_key = {}
            for i, known in enumerate(self.names):
                self._by_key.setdefault(contig_key(known), []).append(i)
        places = self._by_key.get(contig_key(name), [])
        if len(places) == 1:
            return places[0]
        at = f"{where}: " if where else ""
        if places:
            several = " and ".join(repr(self.names[i]) for i in places[:3])
            raise RegionError(f"{at}contig {name!r} may be {several} of {self.path}: give the exact name")
        some = ", ".join(self.names[:5]) + (", ..." if len(self.names) > 5 else "")
        raise RegionError(
            f"{at}no contig {name!r} in {self.path}, which has {some}: use one of its names, or the right genome"
        )

    def __contains__(self, name: str) -> bool:
        try:
            self.find(name)
        except RegionError:
            return False
        return True


def parse_range(
    text: str, where: str = "", is_contig: Callable[[str], bool] = lambda _: False
) -> tuple[str, int, int | None]:
    """`contig:start_bp-end_bp` (0-based, half-open) -> (contig, start, end); other text is a contig, with end
    None.

    Only the last colon separates contig and range, because names such as `HLA-A*01:01:01:01` contain colons.
    is_contig: whether a text is the name of a contig; such a text is never read as a range.
    Raises RegionError, which starts with `where`, unless start < end.

    >>> parse_range("HLA-A*01:01:01:01:100-2,000")
    ('HLA-A*01:01:01:01', 100, 2000)
    """
    match = None if is_contig(text) else _RANGE.fullmatch(text)
    if match is None:
        return text, 0, None
    digits = [match[name].replace(",", "") for name in ("start", "end")]
    if not all(digits) or max(map(len, digits)) > 18 or int(digits[0]) >= int(digits[1]):
        at = f"{where}: " if where else ""
        raise RegionError(
            f"{at}{text!r}: wanted contig:start_bp-end_bp with start < end, 0-based and half-open"
        )
    return match["contig"], int(digits[0]), int(digits[1])


def split_strand(text: str, is_contig: Callable[[str], bool] = lambda _: False) -> tuple[str, str]:
    """(text of the range, strand): `chr1:10-20(-)` is on the reverse strand, as bedtools writes it.

    is_contig: whether a text is the name of a contig; such a text is not split.

    >>> split_strand("chr1:10-20(-)"), split_strand("chr1")
    (('chr1:10-20', '-'), ('chr1', '+'))
    """
    if text.endswith(("(-)", "(+)")) and not is_contig(text):
        return text[:-3], text[-2]
    return text, "+"


def range_in(
    text: str, contigs: ContigNames, lengths: Sequence[int] | np.ndarray, where: str
) -> tuple[int, int, int]:
    """(number of the contig, start_bp, end_bp) of a contig or a range of it. Raises RegionError, which starts
    with `where`."""
    name, start_bp, end_bp = parse_range(text, where, contigs.__contains__)
    contig = contigs.find(name, f"{where}: {text!r}: wanted contig or contig:start_bp-end_bp")
    length = int(lengths[contig])
    end_bp = length if end_bp is None else end_bp
    if not 0 <= start_bp < end_bp <= length:
        raise RegionError(
            f"{where}: {text!r}: wanted 0 <= start < end <= {length:,}, the length of the contig"
        )
    return contig, start_bp, end_bp
