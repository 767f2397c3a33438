"""The folder of an unfinished job beside its output: what the job is, its finished parts, and whether it may go on.

The folder `.<output>.<kind>` exists from the start of a job until its output is complete. `job.json` describes the job;
`--resume` continues it only with the same model, input and settings. Finished parts are appended to files that are
locked by the process which writes them.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from dnagpt_fast.json_files import read_json
from dnagpt_fast.output_files import errors_name, try_lock, whole_folder, write_json

JOB = "job.json"
LONGEST_NAME = 255  # bytes, of all usual file systems


class JournalError(ValueError):
    """An unfinished job that cannot be continued."""


class Journal(Protocol):
    """The finished parts of a job."""

    @property
    def is_empty(self) -> bool: ...

    def close(self) -> None: ...


J = TypeVar("J", bound=Journal)


class JobFolder:
    """The folder of the job that makes `output`. kind: what it holds, such as "scores"; part of its name."""

    def __init__(self, output: Path, kind: str) -> None:
        self.output = output
        self.kind = kind
        name = f".{output.name}.{kind}"
        if len(os.fsencode(name)) > LONGEST_NAME:
            name = f".{hashlib.sha256(os.fsencode(output.name)).hexdigest()[:32]}.{kind}"
        self.path = output.with_name(name)

    def refuse_unfinished(self) -> None:
        """Raises JournalError if the output has an unfinished job, or one that another process is working on."""
        if self.path.exists():
            for path in sorted(self.path.iterdir()):
                with open(path, "rb") as file:
                    _lock(file, path)
            raise JournalError(
                f"{self.path} has the {self.kind} of an unfinished job: continue it with --resume, or remove the folder"
            )

    def make(self, job: dict[str, Any]) -> None:
        """Makes the folder of a new job, with job.json in it from the first moment. job: as JSON gives it back, lists
        and no tuples. Raises OSError that names the output."""
        try:
            with whole_folder(self.path) as temporary:
                write_json(temporary / JOB, job)
        except FileExistsError:  # another process was faster
            self.refuse_unfinished()
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.output)) from error

    def check(self, job: dict[str, Any]) -> None:
        """Raises JournalError if there is no unfinished job, or one of another kind; it names every difference."""
        try:
            before = read_json(self.path / JOB)
        except FileNotFoundError:
            raise JournalError(
                f"--resume: there is no unfinished job of {self.output} ({self.path / JOB})"
            ) from None
        except ValueError as error:
            raise JournalError(f"{error}: remove {self.path}, and start anew") from error
        changed = sorted(key for key in {*job, *before} if job.get(key) != before.get(key))
        if changed:
            was = ", ".join(f"{key} was {before.get(key)}, is {job.get(key)}" for key in changed)
            raise JournalError(f"--resume: {self.path} is of another job: {was}")

    def parts(self, name: str, whole_bytes: Callable[[BinaryIO], int]) -> "Parts":
        """A file of finished parts, made if it is not there. whole_bytes: how many bytes of it are whole parts."""
        return Parts(self, self.path / name, whole_bytes)

    @contextlib.contextmanager
    def journal(self, job: dict[str, Any], opened: Callable[[], J], *, resume: bool) -> Iterator[J]:
        """The journal that `opened` makes in the folder of a new job, or with `resume` in that of the unfinished one.

        The folder is removed at the end of the block; after an error it is kept for --resume, unless the journal is
        empty. Raises JournalError as `check` and `refuse_unfinished` do.
        """
        if resume:
            self.check(job)
        else:
            self.refuse_unfinished()
            self.make(job)
        journal = opened()
        try:
            yield journal
        except BaseException:
            journal.close()
            if journal.is_empty:
                self.remove()
            raise
        journal.close()
        self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _lock(file: BinaryIO, path: Path) -> None:
    if try_lock(file.fileno()) is False:
        raise JournalError(f"{path}: another process is working on this job")


class Parts:
    """A file to which finished parts are appended; an incomplete last part is removed first.

    Raises JournalError if another process writes to it.
    """

    def __init__(self, folder: JobFolder, path: Path, whole_bytes: Callable[[BinaryIO], int]) -> None:
        self._output = folder.output
        self._file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")  # noqa: SIM115 see close
        try:
            _lock(self._file, path)
        except JournalError:
            self._file.close()
            raise
        whole = whole_bytes(self._file)
        self._file.truncate(whole)
        self._file.seek(whole)

    def append(self, part: bytes) -> None:
        """The part is with the system when this returns: it survives the end of the process. Raises OSError that names
        the output."""
        with errors_name(self._output):
            self._file.write(part)
            self._file.flush()

    def close(self) -> None:
        # what append could not write is tried once more; it is no whole part
        with contextlib.suppress(OSError):
            self._file.close()
