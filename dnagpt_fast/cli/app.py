"""The command line `dnagpt-fast`. Each command is a short function: it reads options, calls one module, prints.

Exit codes: 0 done, 1 the input or the work failed (one line on stderr), 2 the command line was wrong, 130 interrupted,
143 ended by SIGTERM. DNAGPT_FAST_TRACEBACK=1 shows where an error came from.
"""

import contextlib
import functools
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TextIO, get_args, get_origin, get_type_hints

import typer

from dnagpt_fast.cli import (
    evaluate_commands,
    genome_commands,
    model_commands,
    run_commands,
    variant_commands,
)
from dnagpt_fast.cli.torch_import import torch_is_no_garbage
from dnagpt_fast.output_files import DISK_FULL

app = typer.Typer(
    name="dnagpt-fast",
    help="Train, fine-tune and use DNAGPT straight from packed 2-bit genomes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def every_command() -> None:
    """Train, fine-tune and use DNAGPT straight from packed 2-bit genomes."""


def doctor() -> None:
    """Show what is installed and built, which implementation of each op is used, and how to fix what is wrong."""
    from dnagpt_fast.cli.doctor import examine

    findings = examine()
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.what:{width}}  {finding.message}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def models() -> None:
    """List the models that are part of the package; every command that takes a model accepts their names."""
    from dnagpt_fast.weights.packaged import known_names, packaged_models

    found = packaged_models()
    if not found:
        typer.echo(known_names(), err=True)
        raise typer.Exit(1)
    for name, model in found.items():
        typer.echo(f"{name}  {model.about}  ({model.file.stat().st_size / 1e6:.1f} MB)")


# In the order of --help.
COMMANDS: dict[str, Callable[..., None]] = {
    "pack": genome_commands.pack,
    "info": genome_commands.info,
    "extract": genome_commands.extract,
    "make-task": genome_commands.make_task,
    "pretrain": run_commands.pretrain,
    "finetune": run_commands.finetune,
    "predict": run_commands.predict,
    "plan": run_commands.plan,
    "generate": model_commands.generate,
    "embed": model_commands.embed,
    "score": model_commands.score,
    "track": variant_commands.track,
    "variants": variant_commands.variants,
    "calibrate": variant_commands.calibrate,
    "mutate": variant_commands.mutate,
    "attribute": variant_commands.attribute,
    "attention": variant_commands.attention,
    "evaluate": evaluate_commands.evaluate,
    "convert": model_commands.convert,
    "models": models,
    "doctor": doctor,
}


def _with_early_ends(command: Callable[..., None]) -> Callable[..., None]:
    """The command, but with ValueError for a file that ends too early: typer treats EOFError as the end of the input
    from a keyboard."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except EOFError as error:
            raise ValueError(str(error) or "a file ends too early") from error

    return run


def path(text: str) -> Path:
    """The value of a path parameter. An empty name, as of an unset variable in a script, would be the current folder.
    Files are not looked at here: a command reports them like all its errors, in one line."""
    if not str(text).strip():
        raise typer.BadParameter("the name is empty: wanted a file or folder")
    return Path(text)


def _parsed_by_path(command: Callable[..., None]) -> Callable[..., None]:
    for hint in get_type_hints(command, include_extras=True).values():
        if get_origin(hint) is Annotated and {Path, list[Path]} & {
            hint.__origin__,
            *get_args(hint.__origin__),
        }:
            (parameter,) = hint.__metadata__
            parameter.parser = path
    return command


for _name, _command in COMMANDS.items():
    app.command(name=_name)(_with_early_ends(_parsed_by_path(_command)))


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits; an error is one line on stderr, not a traceback."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # UTF-8 in every locale, as in files; file names that are not valid UTF-8 are written as they are
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    with warnings.catch_warnings(), torch_is_no_garbage(), _tidy_at_signals() as ended:
        warnings.showwarning = _warn
        try:
            app(args=arguments, prog_name="dnagpt-fast")
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
    text = " ".join(str(error).split())
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
    typer.echo(f"dnagpt-fast: warning: {message}", err=True)
