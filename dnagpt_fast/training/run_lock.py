"""The lock of a run's folder: a second process that wants to train into it is refused before it changes
anything."""

import contextlib
import os
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path

from dnagpt_fast.output_files import errors_name, try_lock
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.settings import ConfigError

FILE = ".writer"


@contextlib.contextmanager
def sole_writer(run: Path, processes: Processes) -> Iterator[None]:
    """Locks the folder `run`, which is made if it does not exist, for writing in the block. All processes
    enter it; process 0 holds the lock for them.

    The kernel removes the lock when the process ends in any way. The locked file names the holder; the file
    of a killed process locks nothing. On a network file system with locks, the lock works across hosts; on
    one without locks, a warning says so. Raises ConfigError that names the process and host that write there.
    """
    with contextlib.ExitStack() as held:
        refusal = _take(run, held) if processes.is_main else None
        refusal = processes.first(refusal)
        if refusal is not None:
            raise ConfigError(refusal)
        yield


def _take(run: Path, held: contextlib.ExitStack) -> str | None:
    """The reason why the folder cannot be locked; None if it is locked until `held` is closed."""
    if not run.exists():
        run.mkdir(parents=True)
        held.callback(_remove_if_empty, run)
    with os.scandir(run) as entries:
        links = sorted(entry.path for entry in entries if entry.is_symlink() and not entry.is_dir())
    if links:
        return (
            f"{links[0]} is a symbolic link: a run writes only into its folder; replace the link by the file"
        )
    path = run / FILE
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        locked = try_lock(handle)
        if locked is False:
            with os.fdopen(handle) as file:
                owner = file.read(300).strip() or "another process"
            return f"{run} is being written by {owner}: wait for its end, or stop it, then continue with --resume"
        if path.exists() and os.path.samestat(os.fstat(handle), os.stat(path)):
            break
        os.close(handle)  # its owner removed the file just before it was locked here
    held.callback(os.close, handle)
    held.callback(path.unlink, missing_ok=True)
    if locked is None:
        warnings.warn(
            f"{run}: its file system has no locks, so a second process could write there at the same time",
            stacklevel=2,
        )
    with errors_name(path):
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {platform.node()}\n".encode())
    return None


def _remove_if_empty(run: Path) -> None:
    with contextlib.suppress(OSError):
        run.rmdir()
