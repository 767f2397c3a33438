"""The run engine of pre-training and fine-tuning: resuming, logs, progress, checkpoints and the early end of
a run.

What differs between the two kinds of run is passed in as a `Course`.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from torch import nn

from dnagpt_fast.output_files import write_text
from dnagpt_fast.progress import Progress
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.checkpoint_writer import CheckpointWriter
from dnagpt_fast.training.log import MetricsLog, TensorBoardLog
from dnagpt_fast.training.loop import Loop, StepReport, StopRequest
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.run_folder import raise_if_refused, record_text, refused_changes
from dnagpt_fast.training.settings import ConfigError

CONFIG = "config.json"


class Job(Protocol):
    """The model with its training loop. `loop` is used only after all processes are connected."""

    config: Any
    processes: Processes

    @property
    def model(self) -> nn.Module: ...

    @property
    def loop(self) -> Loop: ...

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        ...

    def record(self) -> dict[str, Any]:
        """The content of config.json, in the run's folder and in every checkpoint."""
        ...


@dataclass(frozen=True)
class StepNote:
    """line: entries of metrics.jsonl in addition to those of the step. figures: the text beside the progress
    bar. checkpoint: whether a checkpoint is written now; after the last step one always is."""

    line: dict[str, Any]
    figures: str
    checkpoint: bool


def _never(done: int) -> bool:
    return False


def _always(done: int) -> bool:
    return True


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Course:
    """What a kind of run adds to the engine.

    after_step   called by all processes after each step, before its line and its checkpoint are written
    finished     steps done -> whether the run ends early; called before the first step and after each step,
                 when the step's checkpoint has been started; the same in all processes
    pause        steps done -> whether `after_step` reads the weights, asks for a checkpoint, or `finished` may end the
                 run after that step: the next step then waits for it (training/loop.py)
    keep         number of checkpoints that stay on disk
    saved        called by process 0 when the checkpoint of a step has been started
    timeout_s    the longest wait for another process's part of a checkpoint
    tensorboard  whether event files are written as well
    """

    after_step: Callable[[StepReport], StepNote]
    finished: Callable[[int], bool] = _never
    pause: Callable[[int], bool] = _always
    keep: int = 3
    timeout_s: float = 600.0
    tensorboard: bool = False
    saved: Callable[[], object] = _nothing


@dataclass(frozen=True)
class Outcome:
    """steps: optimizer steps done in total. stopped_by: the signal that ended the run early, or None. report:
    the report of a finished run; None for a run that was stopped."""

    steps: int
    stopped_by: str | None
    report: Any = None


def find_start(run: Path, processes: Processes, *, resume: bool) -> checkpoint.Checkpoint | None:
    """The newest undamaged checkpoint of a folder, or None; the same in all processes.

    Raises ConfigError where the folder holds a run and `resume` is False.
    """
    # Only one process reads the disk, so that all continue from the same step.
    start, taken = processes.first(_look(run) if processes.is_main else None)
    if taken and not resume:
        raise ConfigError(f"{run} holds a run already: continue it with --resume, or choose another folder")
    return start


def _look(run: Path) -> tuple[checkpoint.Checkpoint | None, bool]:
    start = checkpoint.newest(run)
    return start, start is not None or (run / CONFIG).exists()


def restore(
    job: Job,
    run: Path,
    start: checkpoint.Checkpoint | None,
    console: Console,
    free: tuple[str, ...],
    other_changes: Callable[[dict[str, Any], Path], dict[str, tuple[Any, Any]]],
) -> int:
    """Loads weights and optimizer state of a checkpoint into the job; returns the number of steps done.

    free           prefixes of the settings that may differ from the checkpoint's
    other_changes  the checkpoint's record and its path -> other differences, by name: (before, now)
    Raises ConfigError that names each setting that differs, CheckpointError.
    """
    for line in checkpoint.damaged(run):
        console.print(f"left out: {line}", style="yellow", soft_wrap=True)
    if start is None:
        console.print(f"{run} holds no checkpoint yet: starting from step 0", soft_wrap=True)
        return 0
    others = other_changes(start.config(), start.path / CONFIG)
    raise_if_refused(run, refused_changes(start, job.config, free) | others)
    start.load(job.model, job.loop.optimizer)
    console.print(f"resuming from {start.path}, step {start.step} of {job.steps}", soft_wrap=True)
    return start.step


def train(job: Job, run: Path, first_step: int, course: Course, console: Console) -> Outcome:
    """Trains until the last step, until `course` is finished, or until a signal, after which a checkpoint is
    written.

    Only process 0 writes files. If a checkpoint could not be written, the run ends after the next step.
    Raises CheckpointError for such a checkpoint, ConfigError for a record that is too large, NonFiniteLoss, OSError.
    """
    record = record_text(job.record(), run / CONFIG)
    if job.processes.is_main:
        run.mkdir(parents=True, exist_ok=True)
        write_text(run / CONFIG, record)
    with StopRequest().listening() as stop:
        done, finished = _steps(job, run, first_step, course, stop, console)
    if finished:
        return Outcome(done, None)
    # Without a name: another process got the signal.
    name = stop.signal_name or "SIGTERM"
    console.print(
        f"stopped by {name} after step {done} of {job.steps}; the checkpoint is in "
        f"{run / checkpoint.FOLDER}; continue with --resume",
        soft_wrap=True,
    )
    return Outcome(done, name)


def _steps(
    job: Job, run: Path, first_step: int, course: Course, stop: StopRequest, console: Console
) -> tuple[int, bool]:
    """Runs the steps; returns the number of steps done, and whether the run is finished."""
    done = first_step
    if done == job.steps or course.finished(done):
        return done, True
    record = job.record()
    with contextlib.ExitStack() as files:
        writer = files.enter_context(CheckpointWriter(run, course.keep, job.processes, course.timeout_s))
        logs: list[MetricsLog | TensorBoardLog] = []
        if job.processes.is_main:
            for kind in (MetricsLog, TensorBoardLog) if course.tensorboard else (MetricsLog,):
                logs.append(log := kind(run, first_step))
                files.callback(log.close)
                if isinstance(log, MetricsLog):
                    for said in log.losses:
                        console.print(f"warning: {said}", style="yellow", highlight=False, soft_wrap=True)
        progress = files.enter_context(Progress(console, first_step, job.steps))
        for report in job.loop.run(first_step, job.steps, stop, course.pause):
            done = report.step + 1
            note = course.after_step(report)
            line = {
                "step": report.step,
                **report.losses,
                "lr": report.lr,
                "grad_norm": report.grad_norm,
                "seconds": report.seconds,
                **note.line,
            }
            for log in logs:
                log.write(line)
            progress.update(done, note.figures)
            last = done == job.steps or report.stop
            if note.checkpoint and not (last or course.pause(done)):
                raise RuntimeError(f"a checkpoint after step {report.step}, at which the run does not pause")
            if last or note.checkpoint:
                writer.save(done, job.model, job.loop.optimizer, record)
                if job.processes.is_main:
                    course.saved()
            if writer.broken:
                stop.checkpoint_failed = True  # in all processes, after the next step
            if course.finished(done):
                return done, True
    return done, done == job.steps
