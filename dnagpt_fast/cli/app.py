"""The command line `dnagpt-fast`: runs one command and ends. Each command is a short function: it reads options, calls
one module and returns what is printed.

Exit codes: 0 done, 1 the input or the work failed (one line on stderr), 2 the command line was wrong, 130 interrupted,
143 ended by SIGTERM. DNAGPT_FAST_TRACEBACK=1 shows where an error came from.
"""

import contextlib
import math
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, TextIO

import typer

from dnagpt_fast.cli.command_line import command_line
from dnagpt_fast.cli.quick_start import end_without_search, torch_is_no_garbage
from dnagpt_fast.output_files import DISK_FULL
from dnagpt_fast.progress import quiet


def app(args: list[str] | None = None) -> None:
    """Runs the command line on these arguments, by default those of the process."""
    given = sys.argv[1:] if args is None else args
    # completion in a shell takes the words from its own variables
    completing = "_DNAGPT_FAST_COMPLETE" in os.environ
    command_line(*([] if completing else [given]))(args=given, prog_name="dnagpt-fast")


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits; an error is one line on stderr, not a traceback."""
    end_without_search()
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # UTF-8 in every locale, as in files; file names that are not valid UTF-8 are written as they are
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    with warnings.catch_warnings(), torch_is_no_garbage(), _tidy_at_signals() as ended:
        warnings.showwarning = _warn
        try:
            app(args=arguments)
        except Exception as error:
            if ended.by is not None:
                sys.exit(128 + ended.by)
            if os.environ.get("DNAGPT_FAST_TRACEBACK") == "1":
                raise
            typer.echo(f"dnagpt-fast: error: {_one_line(error)}", err=True)
            sys.exit(1)


# Errors of input that a command cannot use. Other kinds are faults of the program.
EXPECTED = (ValueError, IndexError, OSError, RuntimeError, ImportError)


def _open_closed_streams() -> None:
    """A closed standard stream would give its number to the next file that is opened, and what libraries print would be
    written into that file. What is written to a closed stream is lost, as its user wants."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _one_line(error: Exception) -> str:
    text = re.sub(r"^\[Errno \d+\] ", "", " ".join(str(error).split()))
    if isinstance(error, OSError) and error.filename is None and error.errno in DISK_FULL:
        # every file names itself
        return f"{text}: standard output"
    if isinstance(error, MemoryError):
        return f"out of memory{f': {text}' if text else ''}"
    if isinstance(error, EXPECTED) and not isinstance(error, RecursionError):
        return text or type(error).__name__
    return (
        f"unexpected {type(error).__name__}: {text[:300]}. This is a fault of dnagpt-fast: please report it with the "
        f"command and what it prints under DNAGPT_FAST_TRACEBACK=1"
    )


@dataclass
class _End:
    """How SIGTERM, SIGINT and SIGHUP end a command: by SystemExit, so that no incomplete file is left.

    by  the signal, or None. Python can change an exception in a handler into another one.
    """

    by: int | None = None
    _raised_at: float = -math.inf

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.by = self.by or (number if number != signal.SIGALRM else None)
        if self.by is None:
            return
        if _is_importing(frame):
            self._ask_again()
        elif (
            time.monotonic() - self._raised_at > SECONDS_TO_TIDY
        ):  # otherwise it would interrupt the clean-up
            self._raised_at = time.monotonic()
            raise SystemExit(128 + self.by)

    def raise_later(self, otherwise: Callable[[Any], object]) -> Callable[[Any], object]:
        """For sys.unraisablehook: Python ignores an exception in a destructor or callback, so it is raised again."""

        def hook(ignored: Any) -> None:
            if self.by is None or not isinstance(ignored.exc_value, SystemExit):
                otherwise(ignored)
                return
            self._raised_at = -math.inf
            self._ask_again()

        return hook

    def _ask_again(self) -> None:
        signal.signal(signal.SIGALRM, self.handle)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_TO_ASK_AGAIN)


# A signal during an import is handled after it: an exception in the middle of an import can abort the process (Triton's
# C++ library) or become another one (`__set_name__` of a class).
SECONDS_TO_ASK_AGAIN = 0.02
SECONDS_TO_TIDY = 5.0


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not main.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _tidy_at_signals() -> Iterator[_End]:
    """Handles signals as `_End` says. In runs of several processes they are left to torchrun: a handler that waits for
    Python could block them."""
    ended = _End()
    if "RANK" in os.environ or threading.current_thread() is not threading.main_thread():
        yield ended
        return
    ended_by = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    previous = {number: signal.getsignal(number) for number in (*ended_by, signal.SIGALRM)}
    print_unraisable = sys.unraisablehook
    sys.unraisablehook = ended.raise_later(print_unraisable)
    for number in ended_by:
        if previous[number] != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, ended.handle)
    try:
        yield ended
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = print_unraisable
        for number, handler in previous.items():
            signal.signal(number, handler)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if not quiet.get():
        typer.echo(f"dnagpt-fast: warning: {message}", err=True)
