"""Per-base tracks as BigWig files with a track hub, for IGV and the UCSC browser.

BigWig: https://genome.ucsc.edu/goldenPath/help/bigWig.html, written with pyBigWig. A base without a value is left out,
which is different from 0. Hub: https://genome.ucsc.edu/goldenPath/help/hgTrackHubHelp.html.
"""

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dnagpt_fast.extras import need
from dnagpt_fast.genome import Genome
from dnagpt_fast.model.base_tracks import BaseTracks
from dnagpt_fast.model.marginals import BASE_ORDER
from dnagpt_fast.output_files import whole_folder, write_text

PIECE_BP = 1 << 16
"""Bases in memory at once; it does not change the values."""
COLOURS = {"A": "0,158,115", "C": "0,114,178", "G": "230,159,0", "T": "213,94,0"}
"""From Okabe and Ito's palette, which colour-blind readers can distinguish."""
TRACKS = {
    "log_likelihood": "log P(base of the genome | bases before it) in nats",
    "entropy": "entropy of P(A, C, G, T) in bits: 0 certain, 2 all bases equally likely",
    **{base: f"P({base})" for base in BASE_ORDER},
}
KINDS = ("log_likelihood", "entropy", "bases")

Range = tuple[int, int, int]
"""contig (its index in the genome), start_bp, end_bp"""


@dataclass(frozen=True)
class TrackSummary:
    """bases: number of bases with values; seconds: total time."""

    bases: int
    seconds: float


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The ranges in order of contig and start, overlapping ones joined: BigWig needs every base once and in order."""
    found: list[Range] = []
    for contig, start, end in sorted(ranges):
        if found and found[-1][0] == contig and start <= found[-1][2]:
            found[-1] = contig, found[-1][1], max(end, found[-1][2])
        else:
            found.append((contig, start, end))
    return found


def write_tracks(
    tracks: BaseTracks,
    genome: Genome,
    ranges: Iterable[Range],
    folder: Path,
    *,
    kinds: Sequence[str] = KINDS,
    both_strands: bool = False,
    name: str = "dnagpt",
    progress: Callable[[int], object] = lambda bases: None,
) -> TrackSummary:
    """Writes BigWig files `<track>.bw` of the ranges and the hub file into a new folder, completely or not at all.

    kinds         some of KINDS; "bases" are the four probabilities
    both_strands  use the mean of the probabilities of both strands
    name          of the genome in the hub, such as "hg19"
    progress      is called with the number of bases done since the last call
    Unknown bases of the genome have no value. Raises ValueError, FileExistsError, and ImportError without pyBigWig.
    """
    if not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f"tracks {', '.join(kinds) or 'none'}: wanted some of {', '.join(KINDS)}")
    bigwig, began, bases = need("pyBigWig", "tracks"), time.monotonic(), 0
    names = [
        track for kind in KINDS if kind in kinds for track in (BASE_ORDER if kind == "bases" else [kind])
    ]
    with whole_folder(folder) as temporary:
        with _named(folder), ExitStack() as stack:
            files = {}
            for track in names:
                files[track] = bigwig.open(str(temporary / f"{track}.bw"), "w")
                stack.callback(files[track].close)
                files[track].addHeader(list(zip(genome.names, genome.lengths.tolist(), strict=True)))
            for contig, start, end in merged(ranges):
                for first in range(start, end, PIECE_BP):
                    stop = min(first + PIECE_BP, end)
                    values = piece(tracks, genome, contig, first, stop, both_strands)
                    for track in names:
                        _add(files[track], genome.names[contig], first, values[track])
                    bases += int(np.isfinite(values["entropy"]).sum())
                    progress(stop - first)
        for track in names:
            _check_end(temporary / f"{track}.bw", folder / f"{track}.bw")
        _write_hub(temporary, names, name)
    return TrackSummary(bases, time.monotonic() - began)


def _check_end(file: Path, name: Path) -> None:
    """Raises OSError for a file without its end, which pyBigWig does not report when the disk is full.

    The writers of UCSC and of pyBigWig end a file with the four bytes that it begins with.
    """
    with open(file, "rb") as opened:
        first = opened.read(4)
        opened.seek(-4, 2)
        if first != opened.read(4):
            raise OSError(errno.ENOSPC, "the file is incomplete: is the disk full?", str(name))


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """pyBigWig's errors name no file."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(f"{folder}: {error}: is the disk full?") from error


def piece(
    tracks: BaseTracks, genome: Genome, contig: int, start: int, end: int, both_strands: bool
) -> dict[str, np.ndarray]:
    """Track -> float32 (end - start,), NaN at the genome's unknown bases."""
    whole = genome.range(genome.names[contig])
    ask = tracks.both_strands if both_strands else tracks.strand
    p = ask(whole, start, end).double()
    letters = np.frombuffer(genome.sequence(genome.names[contig], start, end).encode(), np.uint8)
    known = letters != ord("N")
    column = torch.from_numpy(np.searchsorted(np.frombuffer(b"ACGT", np.uint8), letters) % 4)
    logs = p.clamp_min(torch.finfo(torch.float64).tiny).log()
    found = {
        "log_likelihood": logs.gather(1, column[:, None])[:, 0],
        "entropy": -(p * logs).sum(1) / np.log(2),
        **{base: p[:, i] for i, base in enumerate(BASE_ORDER)},
    }
    return {
        track: np.where(known, values.numpy(), np.nan).astype(np.float32) for track, values in found.items()
    }


def _add(file: object, contig: str, start: int, values: np.ndarray) -> None:
    """Adds one entry for each run of known values."""
    known = np.concatenate([[False], np.isfinite(values), [False]])
    edges = np.flatnonzero(known[1:] != known[:-1]).tolist()
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        file.addEntries(contig, start + first, values=values[first:stop], span=1, step=1)  # type: ignore[attr-defined]


def _write_hub(folder: Path, names: list[str], genome: str) -> None:
    """Writes hub.txt, a hub in one file (`useOneFile on`), which a browser opens by its address."""
    lines = [
        "hub dnagpt_fast", "shortLabel DNAGPT", "longLabel What DNAGPT expects, base by base",
        "useOneFile on", "email nobody@example.org", "", f"genome {genome}", "",
    ]  # fmt: skip
    for track in names:
        span = {"log_likelihood": "-4:0", "entropy": "0:2"}.get(track, "0:1")
        lines += [
            f"track dnagpt_{track}", f"bigDataUrl {track}.bw", f"shortLabel {track}",
            f"longLabel {TRACKS[track]}", "type bigWig", "visibility full", "autoScale off",
            f"viewLimits {span}", f"color {COLOURS.get(track, '86,180,233')}", "maxHeightPixels 100:50:8", "",
        ]  # fmt: skip
    write_text(folder / "hub.txt", "\n".join(lines))
