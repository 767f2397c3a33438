"""Progress of a job on standard error: a bar on a terminal, otherwise one line now and then."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dnagpt_fast import input_files

if TYPE_CHECKING:
    from rich.console import Console

SECONDS_BETWEEN_LINES = 10.0
SECONDS_TO_FIRST_LINE = 30.0
"""Of work that is not shown at once: without a terminal, shorter work shows nothing."""
SECONDS_TO_BAR = 0.5
WIDE = 110
"""Columns of a terminal from which on the bar is long."""
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def has_bars(console: "Console") -> bool:
    """Whether bars can be drawn: not in a file, nor on a terminal that cannot move its cursor (TERM=dumb)."""
    return console.is_terminal and not console.is_dumb_terminal and not console.quiet


class Progress:
    """Shows steps done, remaining time, elapsed time and a text of figures.

    On a narrow terminal, figures are left out from the end; the bar, the steps and the times stay.
    """

    def __init__(
        self, console: "Console", first_step: int, steps: int, unit: str = "step", *, at_once: bool = True
    ) -> None:
        """
        first_step  steps done in earlier starts
        unit        the name of a step
        at_once     False: a bar after SECONDS_TO_BAR, and without a terminal a line only every SECONDS_TO_FIRST_LINE
        """
        self.console = console
        self.first_step = first_step
        self.steps = steps
        self.unit = unit
        self._began = time.monotonic()
        self._every = SECONDS_BETWEEN_LINES if at_once else SECONDS_TO_FIRST_LINE
        self._shown = at_once
        self._last_line = -self._every if at_once else self._began
        self._bar: Any = None
        self._has_bar = has_bars(console)
        if self._has_bar and at_once:
            self._begin_bar()

    def _begin_bar(self) -> None:
        from rich import progress as rich_progress

        long = self.console.width >= WIDE
        columns = (
            rich_progress.BarColumn(bar_width=26 if long else 14),
            rich_progress.TextColumn("{task.fields[count]}", markup=False),
            rich_progress.TextColumn("left"), rich_progress.TimeRemainingColumn(compact=True),
            rich_progress.TextColumn("after"), rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("{task.fields[figures]}", markup=False),
        )  # fmt: skip
        # Output to a file or a pipe must not pass through the bar, which is drawn on standard error.
        self._bar = rich_progress.Progress(
            *columns, console=self.console, redirect_stdout=sys.stdout.isatty()
        )
        self._task = self._bar.add_task(
            "", total=self.steps, completed=self.first_step, figures="", count=self._count(self.first_step)
        )
        self._bar.start()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, figures: str) -> None:
        """Shows that `done` steps of the job are done. figures: separated by two blanks, the most important first."""
        now = time.monotonic()
        if self._has_bar:
            if self._bar is None and now - self._began > SECONDS_TO_BAR:
                self._begin_bar()
            if self._bar is not None:
                count = self._count(done)
                shown = fitting(figures.split("  "), self._room(count))
                self._bar.update(self._task, completed=done, figures=shown, count=count)
            return
        is_end = done >= self.steps and self._shown
        if now - self._last_line < self._every and not is_end:
            return
        self._last_line, self._shown = now, True
        left = (now - self._began) / max(done - self.first_step, 1) * (self.steps - done)
        self.console.print(
            f"{self.unit} {done}/{self.steps}  {figures}  left {duration(left)}",
            highlight=False,
            soft_wrap=True,
        )

    def _count(self, done: int) -> str:
        if self.steps < 100_000:
            return f"{done:>{len(str(self.steps))}}/{self.steps}"
        return f"{shortened(done):>6}/{shortened(self.steps)}"

    def _room(self, count: str) -> int:
        """Columns that are left for the figures."""
        bar = 26 if self.console.width >= WIDE else 14
        return self.console.width - bar - len(count) - len("left 0:00:00 after 0:00:00") - 5


def fitting(figures: Sequence[str], columns: int) -> str:
    """As many figures as fit, separated by two blanks."""
    shown = ""
    for figure in figures:
        longer = f"{shown}  {figure}" if shown else figure
        if len(longer) > columns:
            break
        shown = longer
    return shown


def shortened(count: float) -> str:
    """1234567 -> `1.23M`: three digits."""
    for size, prefix in _PREFIXES:
        if count >= size:
            value = count / size
            return f"{value:.{max(0, 3 - len(str(int(value))))}f}{prefix}"
    return f"{count:.0f}"


def duration(seconds: float) -> str:
    """3661 -> `1:01:01`, 61 -> `1:01`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


quiet: ContextVar[bool] = ContextVar("quiet", default=False)
"""True for a job that shall show neither progress nor notes: the option --quiet."""


def standard_error(*, main: bool = True) -> "Console":
    """Where a job shows its progress and notes. main: False in all processes except one, which show nothing."""
    from rich.console import Console

    return Console(stderr=True, quiet=quiet.get() or not main)


@contextmanager
def counting(
    total: int, unit: str, rate: str = "", *, before: int = 0, per_step: float = 1
) -> Iterator[Callable[[int], None]]:
    """What shall be called with how many more of `total` are done. Short work shows nothing.

    rate      unit of the speed, such as bp/s
    before    done by an earlier start
    per_step  how many of the rate's units one step has
    """
    began, done = time.monotonic(), before
    with Progress(standard_error(), before, total, unit, at_once=False) as progress:

        def report(more: int) -> None:
            nonlocal done
            done += more
            speed = per_step * (done - before) / max(time.monotonic() - began, 1e-9)
            progress.update(done, f"{shortened(speed)} {rate}" if rate else "")

        yield report


@contextmanager
def reading() -> Iterator[None]:
    """Shows how far large input files are read that are opened inside the block, one after the other."""
    shown: Progress | None = None
    of: object = None

    def report(path: Path, file: object, done: int, total: int) -> None:
        nonlocal shown, of
        if file is not of:
            if shown is not None:
                shown.__exit__(None, None, None)
            shown, of = Progress(standard_error(), 0, total, "byte", at_once=False), file
        assert shown is not None
        shown.update(done, f"reading {path.name}")
        if done >= total:
            shown.__exit__(None, None, None)

    token = input_files.watcher.set(report)
    try:
        yield
    finally:
        input_files.watcher.reset(token)
        if shown is not None:
            shown.__exit__(None, None, None)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Shows on a terminal that work without steps goes on, and for how long."""
    console = standard_error()
    if not has_bars(console):
        yield
        return
    from rich.progress import Progress as Columns
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    with Columns(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(),
        console=console, transient=True, redirect_stdout=sys.stdout.isatty(),
    ) as shown:  # fmt: skip
        shown.add_task(what, total=None)
        yield
