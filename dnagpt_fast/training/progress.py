"""What a run shows on the terminal: a bar where there is one, a line now and then where there is none."""

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
    """Steps done, a text of figures, time gone and time left."""

    def __init__(
        self, console: Console, first_step: int, steps: int, unit: str = "step", *, at_once: bool = True
    ) -> None:
        """
        first_step  steps that an earlier start did
        unit        what a step is called
        at_once     False: where there is no bar, nothing is shown of what ends within SECONDS_BETWEEN_LINES
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
            # The bar is drawn on standard error. Where the output goes into a file or a pipe, it stays out of its way.
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
        """`done` steps of the run are behind us."""
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
            f"{self.unit} {done}/{self.steps}  {figures}  left {duration(left)}", highlight=False
        )


def duration(seconds: float) -> str:
    """3661 -> `1:01:01`, 61 -> `1:01`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
