"""Progress of a run: a bar on a terminal, otherwise a line every few seconds."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 10.0


class TrainingProgress:
    """Shows steps done, a text of figures, elapsed time and remaining time."""

    def __init__(
        self, console: Console, first_step: int, steps: int, unit: str = "step", *, at_once: bool = True
    ) -> None:
        """
        first_step  steps done in earlier starts
        unit        the name of a step
        at_once     False: without a bar, work that ends within SECONDS_BETWEEN_LINES shows nothing
        """
        self.console = console
        self.first_step = first_step
        self.steps = steps
        self.unit = unit
        self._began = time.monotonic()
        self._shown = at_once
        self._last_line = -SECONDS_BETWEEN_LINES if at_once else self._began
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            )  # fmt: skip
            # The bar is drawn on standard error. Output to a file or a pipe must not pass through it.
            self._bar = Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty())
            self._task = self._bar.add_task("", total=steps, completed=first_step, figures="")

    def __enter__(self) -> "TrainingProgress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, figures: str) -> None:
        """Shows that `done` steps of the run are done."""
        if self._bar:
            self._bar.update(self._task, completed=done, figures=figures)
            return
        now = time.monotonic()
        is_end = done >= self.steps and self._shown
        if now - self._last_line < SECONDS_BETWEEN_LINES and not is_end:
            return
        self._last_line, self._shown = now, True
        left = (now - self._began) / max(done - self.first_step, 1) * (self.steps - done)
        self.console.print(
            f"{self.unit} {done}/{self.steps}  {figures}  left {duration(left)}",
            highlight=False,
            soft_wrap=True,
        )


def duration(seconds: float) -> str:
    """3661 -> `1:01:01`, 61 -> `1:01`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
