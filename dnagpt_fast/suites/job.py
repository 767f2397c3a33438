"""Runs a suite: reads and checks everything, then each method on each task, then scores, differences and the report."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dnagpt_fast.evaluation.scores import RESAMPLES, bootstrap, difference_of, mean_of, resampled
from dnagpt_fast.extras import need
from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.progress import standard_error, working
from dnagpt_fast.suites import checks
from dnagpt_fast.suites.foreign import ForeignModel
from dnagpt_fast.suites.journal import Done, Journal
from dnagpt_fast.suites.registry import suite
from dnagpt_fast.suites.report import write_report
from dnagpt_fast.suites.subjects import HowToRun, OwnModel, Subject
from dnagpt_fast.suites.task import FROZEN, LIKELIHOOD, TUNED, WAYS, Prediction, Scorer, Source, Task
from dnagpt_fast.suites.tuned import Tuning, check_tuning, tune
from dnagpt_fast.training.job_folder import JobFolder
from dnagpt_fast.training.run_folder import versions

FOREIGN = "hf:"


@dataclass(frozen=True)
class Choices:
    """models: what `load_model` takes, or hf:FOLDER. ways: of WAYS. controls: also random models of the same shape.
    tuning: of the way `tuned`. resamples: of the bootstrap."""

    models: tuple[str, ...]
    ways: tuple[str, ...] = (FROZEN, LIKELIHOOD)
    controls: bool = True
    run: HowToRun = field(default_factory=HowToRun)
    tuning: Tuning = field(default_factory=Tuning)
    resamples: int = RESAMPLES


@dataclass(frozen=True)
class Method:
    task: Task
    name: str
    role: str
    way: str
    model: str
    call: Callable[[], Prediction]


def evaluate(
    name: str,
    source: Source,
    choices: Choices,
    output: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Writes the folder `output` (report.json, report.md, report.png, report.html, predictions.npz) and returns the
    content of report.json.

    Everything is read and checked before the first model is asked. resume: continue the unfinished job of this output.
    Raises LabelError for data that cannot be used, ValueError for choices, FileExistsError for an output that is there,
    JournalError for a job that cannot be continued, ImportError for a missing library.
    """
    console = console or standard_error()
    for way in choices.ways:
        if way not in WAYS:
            raise ValueError(f"--way {way}: wanted {', '.join(WAYS)}")
    if len(set(choices.models)) < len(choices.models):
        raise ValueError(f"--model names a model twice: {', '.join(choices.models)}")
    if min(choices.tuning.lrs, default=0.0) <= 0:
        raise ValueError(f"--lr {choices.tuning.lrs}: wanted numbers above 0")
    if output.exists():
        raise FileExistsError(f"{output} is there already: choose another folder")
    need("sklearn")
    began = time.monotonic()
    chosen = suite(name)
    tasks = list(chosen.tasks(source))
    _check_names(source, tasks)
    _check_ways(choices, tasks)
    subjects = [subject_of(model, choices.run) for model in choices.models]
    for task in tasks:
        for subject in subjects:
            subject.check(task.texts)
            if TUNED in choices.ways and task.examples:
                check_tuning(task, subject, choices.tuning)
    for task in tasks:
        for said in task.findings:
            console.print(f"{task.name}: {said}", style="yellow", highlight=False, soft_wrap=True)
    facts = {subject.name: subject.facts() for subject in subjects}
    runs = output.with_name(f".{output.name}.runs")
    job = json.loads(json.dumps(_identity(name, source, choices, facts)))
    folder = JobFolder(output, "evaluation")
    with folder.journal(job, lambda: Journal(folder), resume=resume) as journal:
        for method in _methods(tasks, subjects, choices, runs):
            if not journal.has(method.task.name, method.name):
                _run(method, journal, console)
        # a shorter list of methods than an earlier run's cannot be: the job is the same
        report = _report(tasks, subjects, journal.done, choices)
        report = {
            "suite": name,
            "about": chosen.ABOUT,
            "job": job,
            "models": facts,
            "versions": {**versions(), "scikit-learn": need("sklearn").__version__},
            "seconds": round(time.monotonic() - began, 1),
            **report,
        }
        write_report(output, report, _arrays(journal.done))
    shutil.rmtree(runs, ignore_errors=True)
    return report


def subject_of(name: str, run: HowToRun) -> Subject:
    return ForeignModel(name, run) if name.startswith(FOREIGN) else OwnModel(name, run)


def _check_names(source: Source, tasks: Sequence[Task]) -> None:
    missing = [name for name in source.only if name not in {task.name for task in tasks}]
    if missing or not tasks:
        have = f"; it has {', '.join(task.name for task in tasks)}" if tasks else ""
        raise LabelError(f"{source.data}: no task {', '.join(missing) or 'at all'} in it{have}")


def _check_ways(choices: Choices, tasks: Sequence[Task]) -> None:
    """Raises ValueError if no task has one of the ways."""
    offered = {way for task in tasks for way in (*task.ways, *((TUNED,) if task.examples else ()))}
    if not offered & set(choices.ways):
        raise ValueError(f"--way {', '.join(choices.ways)}: this suite has {', '.join(sorted(offered))}")


def _identity(name: str, source: Source, choices: Choices, facts: dict[str, Any]) -> dict[str, Any]:
    """What the results depend on, as --resume compares it."""
    settings = {k: v for k, v in asdict(choices.run).items() if k != "max_tokens"}
    return {
        "suite": name,
        "models": {model: about["sha256"] for model, about in facts.items()},
        "ways": list(choices.ways),
        "controls": choices.controls,
        "tasks": list(source.only),
        "max_rows": source.max_rows,
        "seed": source.seed,
        "window_bp": source.window_bp,
        "resamples": choices.resamples,
        "run": settings,
        "tuning": asdict(choices.tuning) if TUNED in choices.ways else None,
        "files": {_file_name(Path(path), source.data): digest for path, digest in source.hashes.items()},
    }


def _file_name(path: Path, data: Path) -> str:
    """Below the data folder if it is there: folders may be moved."""
    return str(path.relative_to(data)) if path.is_relative_to(data) and path != data else path.name


def _methods(
    tasks: Sequence[Task], subjects: Sequence[Subject], choices: Choices, runs: Path
) -> Iterator[Method]:
    """Baselines first, then one model after the other, so that few are in memory."""
    for task in tasks:
        for name, call in task.baselines.items():
            yield Method(task, name, "baseline", "", "", call)
    for subject in subjects:
        yield from _of_model(tasks, subject, "model", choices, runs)
        if choices.controls:
            yield from _of_model(tasks, subject.control(), "control", choices, runs)


def _of_model(
    tasks: Sequence[Task], subject: Subject, role: str, choices: Choices, runs: Path
) -> Iterator[Method]:
    for task in tasks:
        for way, call in task.ways.items():
            if way in choices.ways:
                named = f"{subject.name}, {way}" if len(task.ways) > 1 or task.examples else subject.name
                yield Method(task, named, role, way, subject.name, partial(call, subject))
        if TUNED in choices.ways and task.examples and isinstance(subject, OwnModel):

            def tuned(task: Task = task) -> Prediction:
                return tune(task, subject, choices.tuning, runs, choices.run)

            yield Method(task, f"{subject.name}, {TUNED}", role, TUNED, subject.name, tuned)


def _run(method: Method, journal: Journal, console: Console) -> None:
    began = time.monotonic()
    with working(f"{method.task.name}: {method.name}"):
        found = method.call()
    for values in found.values:
        if not np.isfinite(values).all():
            raise ValueError(f"{method.task.name}, {method.name}: a prediction is not a finite number")
    seconds = time.monotonic() - began
    scorers = [method.task.scorer(values) for values in found.values]
    every = np.arange(method.task.rows)
    value = float(np.mean([scorer(every)[method.task.measure] for scorer in scorers]))
    console.print(
        f"{method.task.name}: {method.name}: {method.task.measure} {value:.4f}, {seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    journal.append(
        Done(method.task.name, method.name, method.role, method.way, method.model, round(seconds, 2), found)
    )


# Scores


def _report(
    tasks: Sequence[Task], subjects: Sequence[Subject], done: Sequence[Done], choices: Choices
) -> dict[str, Any]:
    found = []
    for task in tasks:
        mine = [one for one in done if one.task == task.name]
        scorers = {one.method: _mean_scorer(task, one.prediction) for one in mine}
        results = []
        for one in mine:
            scores = bootstrap(scorers[one.method], task.rows, _draws(task, choices.resamples))
            results.append(
                {
                    "method": one.method,
                    "role": one.role,
                    "way": one.way,
                    "model": one.model,
                    "seconds": one.seconds,
                    "chosen": one.prediction.chosen,
                    "seeds": len(one.prediction.values),
                    "scores": {name: list(score) for name, score in scores.items()},
                }
            )
        found.append(
            {
                "task": task.name,
                "measure": task.measure,
                "rising": task.rising,
                "rows": task.rows,
                "facts": task.facts,
                "findings": [
                    *task.findings,
                    *(
                        f"{subject.name}: "
                        + checks.seen_in_training(task.loci, subject.facts().get("trained_on", []))
                        for subject in subjects
                    ),
                ],
                "bootstrap": "clusters" if task.clusters is not None else "rows",
                "clusters": None if task.clusters is None else len(np.unique(task.clusters)),
                "results": results,
                "differences": _differences(task, mine, scorers, choices.resamples),
            }
        )
    return {"tasks": found}


def _draws(task: Task, resamples: int) -> Iterator[np.ndarray]:
    return resampled(task.rows, resamples, 0, task.clusters, task.strata)


def _mean_scorer(task: Task, prediction: Prediction) -> Scorer:
    return mean_of([task.scorer(values) for values in prediction.values])


def _differences(
    task: Task, mine: Sequence[Done], scorers: dict[str, Scorer], resamples: int
) -> list[dict[str, Any]]:
    """Of every model from the best baseline and from its own random control, in the same resamples."""
    every = np.arange(task.rows)
    value = {name: scorer(every)[task.measure] for name, scorer in scorers.items()}
    sign = 1 if task.rising else -1
    baselines = [one.method for one in mine if one.role == "baseline"]
    best = max(baselines, key=lambda name: sign * value[name], default=None)
    found = []
    for one in mine:
        if one.role != "model":
            continue
        controls = [
            other.method
            for other in mine
            if other.role == "control" and other.way == one.way and other.model.startswith(f"{one.model}, ")
        ]
        for other in [*([best] if best else []), *controls]:
            score = difference_of(
                _measured(task, scorers[one.method]),
                _measured(task, scorers[other]),
                task.rows,
                _draws(task, resamples),
            )
            found.append({"method": one.method, "minus": other, "difference": list(score)})
    return found


def _measured(task: Task, scorer: Scorer) -> Callable[[np.ndarray], float]:
    return lambda rows: scorer(rows)[task.measure]


def _arrays(done: Sequence[Done]) -> dict[str, np.ndarray]:
    return {f"{one.task}|{one.method}": np.stack(one.prediction.values) for one in done}
