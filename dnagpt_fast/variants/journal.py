"""Scores on disk while a job runs: blocks of records, one JSON line each, so that a killed job can be resumed.

The folder `.<output>.scores` is next to the output. Its `job.json` describes the job, and each process appends its
blocks to its own file. A line without a line end was cut off when the process was killed, and is ignored.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dnagpt_fast.json_files import read_json
from dnagpt_fast.model.alleles import AlleleScore
from dnagpt_fast.output_files import try_lock, write_json

JOB = "job.json"


class JournalError(ValueError):
    """An unfinished job that cannot be continued."""


def folder_of(output: Path) -> Path:
    """The folder of the journal of an output."""
    return output.with_name(f".{output.name}.scores")


def refuse_unfinished(output: Path) -> None:
    """Raises JournalError if the output has the journal of an unfinished job."""
    if (folder := folder_of(output)).exists():
        raise JournalError(
            f"{folder} has the scores of an unfinished job: continue it with --resume, or remove the folder"
        )


class Journal:
    """The folder of one job. `done`: block -> (file, byte) of its scores."""

    def __init__(self, folder: Path, done: dict[int, tuple[Path, int]]) -> None:
        self.folder = folder
        self.done = done
        self._file: BinaryIO | None = None

    @classmethod
    def open(cls, output: Path, job: dict[str, Any], *, resume: bool, main: bool) -> "Journal":
        """A new journal, or with `resume` the existing one. `main`: this process makes the folder of a new one.

        Raises JournalError with `resume` if there is no journal or it is of another job.
        """
        folder = folder_of(output)
        if not resume:
            if main:
                folder.mkdir()
                write_json(folder / JOB, job)
            return cls(folder, {})
        try:
            before = read_json(folder / JOB)
        except FileNotFoundError:
            raise JournalError(f"--resume: there is no unfinished job of {output} ({folder / JOB})") from None
        except ValueError as error:
            raise JournalError(f"{error}: remove {folder}, and start anew") from error
        changed = sorted(key for key in {*job, *before} if job.get(key) != before.get(key))
        if changed:
            was = ", ".join(f"{key} was {before.get(key)}, is {job.get(key)}" for key in changed)
            raise JournalError(f"--resume: {folder} is of another job: {was}")
        return cls(folder, _blocks(folder))

    def append(self, rank: int, block: int, scores: list[list[AlleleScore]]) -> None:
        """Writes a block to the file. Raises JournalError if another process writes to it."""
        if self._file is None:
            self._file = _opened(self.folder / f"process-{rank}.jsonl")
        rows = [
            [[s.llr, s.llr_forward, s.llr_reverse, s.sd, s.conditional, list(s.flags)] for s in of_record]
            for of_record in scores
        ]
        self._file.write(f"{json.dumps({'block': block, 'scores': rows})}\n".encode())
        self._file.flush()

    def scores(self, blocks: int) -> Iterator[list[AlleleScore]]:
        """The scores of each record, all blocks in order. Raises JournalError for a missing block."""
        done = _blocks(self.folder)
        for block in range(blocks):
            if block not in done:
                raise JournalError(f"{self.folder}: block {block} is missing: run again with --resume")
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

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def remove(self) -> None:
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _score(
    llr: float | None,
    llr_forward: float | None,
    llr_reverse: float | None,
    sd: float | None,
    conditional: float | None,
    flags: list[str],
) -> AlleleScore:
    return AlleleScore(llr, llr_forward, llr_reverse, sd, conditional, tuple(flags))


def _opened(path: Path) -> BinaryIO:
    """A file to which lines are appended; an incomplete last line is removed first."""
    file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")  # noqa: SIM115 closed by Journal
    if try_lock(file.fileno()) is False:
        file.close()
        raise JournalError(f"{path}: another process is working on this job")
    file.seek(0)
    whole = file.read().rfind(b"\n") + 1
    file.truncate(whole)
    file.seek(whole)
    return file


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
