"""Scores on disk while a job runs: blocks of records, one JSON line each, so that a killed job can be resumed.

They are in the job's folder (training/job_folder.py); each process appends its blocks to its own file. A line without a
line end was cut off when the process was killed, and is ignored.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dnagpt_fast.model.alleles import AlleleScore
from dnagpt_fast.training.job_folder import JobFolder, JournalError, Parts


class Journal:
    """The scores of one job. `done`: block -> (file, byte) of its scores."""

    def __init__(self, folder: JobFolder, done: dict[int, tuple[Path, int]]) -> None:
        self.folder = folder
        self.done = done
        self._parts: Parts | None = None

    @classmethod
    def open(cls, folder: JobFolder, job: dict[str, Any], *, resume: bool, main: bool) -> "Journal":
        """A new journal, or with `resume` the existing one. `main`: this process makes the folder of a new one.

        Raises JournalError with `resume` if there is no journal or it is of another job.
        """
        if resume:
            folder.check(job)
            return cls(folder, _blocks(folder.path))
        if main:
            folder.make(job)
        return cls(folder, {})

    def append(self, rank: int, block: int, scores: list[list[AlleleScore]]) -> None:
        """Writes a block to the file. Raises JournalError if another process writes to it."""
        if self._parts is None:
            self._parts = self.folder.parts(f"process-{rank}.jsonl", _whole_lines)
        rows = [
            [
                [s.llr, s.llr_forward, s.llr_reverse, s.sd, s.conditional, list(s.flags), s.calibrated, s.z]
                for s in of_record
            ]
            for of_record in scores
        ]
        self._parts.append(f"{json.dumps({'block': block, 'scores': rows})}\n".encode())

    def scores(self, blocks: int) -> Iterator[list[AlleleScore]]:
        """The scores of each record, all blocks in order. Raises JournalError for a missing block."""
        done = _blocks(self.folder.path)
        for block in range(blocks):
            if block not in done:
                raise JournalError(f"{self.folder.path}: block {block} is missing: run again with --resume")
            path, start = done[block]
            try:
                with open(path, "rb") as file:
                    file.seek(start)
                    rows = json.loads(file.readline())["scores"]
                found = [[_score(*one) for one in of_record] for of_record in rows]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise JournalError(
                    f"{path}: byte {start:,}: block {block} is damaged ({error}): remove its line, and run again "
                    f"with --resume"
                ) from error
            yield from found

    @property
    def is_empty(self) -> bool:
        """Whether no process has written a block."""
        return not any(self.folder.path.glob("process-*"))

    def close(self) -> None:
        if self._parts is not None:
            self._parts.close()

    def remove(self) -> None:
        self.close()
        self.folder.remove()


def _score(
    llr: float | None,
    llr_forward: float | None,
    llr_reverse: float | None,
    sd: float | None,
    conditional: float | None,
    flags: list[str],
    calibrated: float | None,
    z: float | None,
) -> AlleleScore:
    return AlleleScore(llr, llr_forward, llr_reverse, sd, conditional, tuple(flags), calibrated, z)


def _whole_lines(file: BinaryIO) -> int:
    return file.read().rfind(b"\n") + 1


# How append begins a line; only its number is read until the scores are written out.
_BLOCK = re.compile(rb'\{"block": ([0-9]{1,12}), "scores": \[.*\]\}\n')


def _blocks(folder: Path) -> dict[int, tuple[Path, int]]:
    """The blocks that are there. Lines that are not whole, as a power failure leaves them, do not count."""
    found: dict[int, tuple[Path, int]] = {}
    for path in sorted(folder.glob("process-*.jsonl")):
        with open(path, "rb") as file:
            start = 0
            for line in file:
                if whole := _BLOCK.fullmatch(line):
                    found[int(whole[1])] = path, start
                start += len(line)
    return found
