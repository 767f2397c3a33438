"""Runs fine-tuning from a start, labelled sequences and settings into a run folder, with pre-training's loop.

RUN/config.json        settings, model, template, classes, standardisation, hashes, versions
    metrics.jsonl      one object per step; the last step of an epoch has validation_loss
    checkpoints/       see training/checkpoint.py; --resume continues from the newest
    model.safetensors  the weights with the lowest validation loss, by their official names
    loss.png, .svg     the loss curve; the .png is also redrawn at checkpoints
    results.json, predictions.tsv, test.png, test.svg (haplotypes.png, .svg, made.haps), README.md   the report on the
                       test rows
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dnagpt_fast.finetune.data.tables import write_rows
from dnagpt_fast.finetune.job import FinetuneRun
from dnagpt_fast.finetune.language import Language
from dnagpt_fast.finetune.loss_figure import draw_finetuning
from dnagpt_fast.finetune.model_card import write_model_card
from dnagpt_fast.finetune.predict import load_finetuned
from dnagpt_fast.finetune.prepare import Prepared
from dnagpt_fast.finetune.report import (
    Predictions,
    mean_loss,
    predict_rows,
    report_haplotypes,
    sample_texts,
    score_predictions,
    write_predictions,
)
from dnagpt_fast.finetune.rivals import only_class, rival_scores
from dnagpt_fast.finetune.settings import ConfigError, FinetuneConfig
from dnagpt_fast.finetune.tagging import report_tags
from dnagpt_fast.finetune.task_loss import TaskLosses
from dnagpt_fast.output_files import whole, write_json
from dnagpt_fast.progress import standard_error, working
from dnagpt_fast.training.devices import pick_device
from dnagpt_fast.training.engine import Course, Outcome, StepNote, find_start, restore, train
from dnagpt_fast.training.log import FILE as METRICS
from dnagpt_fast.training.log import read_metrics
from dnagpt_fast.training.loop import StepReport
from dnagpt_fast.training.loss_curve import Redrawing
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.run_folder import part_of
from dnagpt_fast.training.run_lock import sole_writer
from dnagpt_fast.training.tensor_files import write_safetensors
from dnagpt_fast.weights.forms import WEIGHTS
from dnagpt_fast.weights.start import other_start, start_then

# A resumed run may change how it runs and how it is evaluated, not what it computes. Files, and the model that it began
# with, may have been moved: their contents are compared by hash.
FREE_ON_RESUME = (
    "run.device",
    "run.timeout_s",
    "run.keep",
    "run.evaluation_batch_size",
    "sampling",
    "data.path",
    "data.genome",
    "start.path",
)


def finetune(
    config: FinetuneConfig, run: Path, *, resume: bool = False, console: Console | None = None
) -> list[Outcome]:
    """Fine-tunes into the folder `run`; several runs into run/run-0, run/run-1, ... and run/summary.json.

    resume: continue from the newest checkpoint, or from the start if there is none. Under torchrun each
    process has a replica, and all return the same outcomes. Raises ConfigError, LabelError, NonFiniteLoss,
    OSError.
    """
    processes = Processes.from_environment()
    console = console or standard_error(main=processes.is_main)
    device = pick_device(config.run.device, processes.local_rank)
    with processes.joined(device, config.run.timeout_s), sole_writer(run, processes):
        if processes.first((run / "config.json").exists()) and not resume:
            raise ConfigError(
                f"{run} holds a run already: continue it with --resume, or choose another folder"
            )
        if config.run.warmup_epochs >= config.run.epochs and config.optimizer.lr:
            console.print(
                f"warning: the warm-up takes run.warmup_epochs = {config.run.warmup_epochs:g} of run.epochs = "
                f"{config.run.epochs}: the rate is never lowered, or never reaches optimizer.lr",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )
        if config.run.runs == 1:
            return [_one_run(config, 0, run, processes, resume, console)[0]]
        return _several_runs(config, run, processes, resume, console)


def _several_runs(
    config: FinetuneConfig, run: Path, processes: Processes, resume: bool, console: Console
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    prepared = None
    for i in range(config.run.runs):
        with sole_writer(run / f"run-{i}", processes):
            outcome, prepared = _one_run(config, i, run / f"run-{i}", processes, resume, console, prepared)
        outcomes.append(outcome)
        if outcomes[-1].stopped_by is not None:
            return outcomes
    summary = summarise([o.report for o in outcomes if o.report is not None])
    if processes.is_main:
        write_json(run / "summary.json", summary)
    for name in outcomes[0].report["test"] if outcomes[0].report else ():
        text = f"{summary[name]['mean']:.4f} ± {summary[name]['sd']:.4f}"
        console.print(f"{config.run.runs} runs {name:22} {text}", highlight=False)
    return outcomes


def summarise(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation of each test score over the runs."""
    found: dict[str, Any] = {"runs": len(results)}
    for name in results[0]["test"]:
        values = [
            r["test"][name][0] if isinstance(r["test"][name], list) else r["test"][name] for r in results
        ]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        found[name] = {"mean": float(np.mean(values)), "sd": spread, "values": values}
    return found


def _one_run(
    config: FinetuneConfig,
    number: int,
    run: Path,
    processes: Processes,
    resume: bool,
    console: Console,
    prepared: Prepared | None = None,
) -> tuple[Outcome, Prepared]:
    """One run of several, with its number, into the folder `run`; the outcome's report is the content of
    results.json.

    Only process 0 reads and writes the run's files; it sends the decisions that depend on them to the other
    processes.
    """
    start = find_start(run, processes, resume=resume)
    job = FinetuneRun(config, config.run.seed + number, prepared, processes, start)
    if number == 0 and config.run.runs > 1 and processes.is_main:
        # so that --resume finds the settings, and another start finds the folder taken
        write_json(run.parent / "config.json", job.record())
    first_step = 0
    if resume:
        first_step = restore(
            job, run, start, console, FREE_ON_RESUME, lambda record, path: _other_contents(record, job, path)
        )
    counts = ", ".join(f"{name} {len(data):,}" for name, data in job.prepared.sets.items())
    console.print(f"rows: {counts}; {job.adaptation.trained:,} parameters are tuned", highlight=False)
    console.print(f"precision: {job.config.run.precision} (run.precision)", highlight=False)
    outcome = train(job, run, first_step, _course(job, run, console), console)
    if outcome.stopped_by is None:
        report = processes.first(_report(job, run, console) if processes.is_main else None)
        outcome = replace(outcome, report=report)
    return outcome, job.prepared


def _course(job: FinetuneRun, run: Path, console: Console) -> Course:
    """Keeps the weights with the lowest validation loss so far; stops after `patience` epochs without a lower
    one."""

    def after_step(report: StepReport) -> StepNote:
        figures = f"loss {report.losses['loss']:.4f}"
        if (report.step + 1) % job.steps_per_epoch:
            return StepNote({}, figures, False)
        loss = job.validation_loss()
        if job.processes.is_main:
            best = _best(read_metrics(run))
            if best is None or loss < best["validation_loss"]:
                with whole(run / WEIGHTS) as temporary:
                    write_safetensors(temporary, job.adaptation.state())
        return StepNote({"validation_loss": loss}, f"{figures}  validation {loss:.4f}", True)

    def finished(done: int) -> bool:
        if done % job.steps_per_epoch:
            return False
        return job.processes.first(job.processes.is_main and _patience_is_over(job, run))

    def pause(done: int) -> bool:
        return done % job.steps_per_epoch == 0

    return Course(
        after_step,
        finished,
        pause,
        job.config.run.keep,
        job.config.run.timeout_s,
        saved=Redrawing(lambda: draw_finetuning(job, run, vector=False), console),
    )


def _best(records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The step with the lowest validation loss so far; of equal ones the first."""
    evaluated = [r for r in records if "validation_loss" in r]
    return min(evaluated, key=lambda r: r["validation_loss"]) if evaluated else None


def _patience_is_over(job: FinetuneRun, run: Path) -> bool:
    """Whether `patience` epochs have passed since the lowest validation loss."""
    records = [r for r in read_metrics(run) if "validation_loss" in r]
    best = _best(records)
    if best is None or not job.config.run.patience:
        return False
    return sum(r["step"] > best["step"] for r in records) >= job.config.run.patience


def _other_contents(record: dict[str, Any], job: FinetuneRun, path: Path) -> dict[str, tuple[Any, Any]]:
    """The contents of the data and the start, before and now, where they differ from a checkpoint's record, the file
    `path`."""
    before = list(part_of(record, "hashes", dict, path).items())
    now = list(job.prepared.hashes.items())
    if len(before) != len(now):
        return {"the files read": ([name for name, _ in before], [name for name, _ in now])}
    found: dict[str, tuple[Any, Any]] = {
        f"the SHA-256 of {name} (then {old_name})": (old, new)
        for (old_name, old), (name, new) in zip(before, now, strict=True)
        if old != new
    }
    return found | other_start(start_then(record, path), job.config.start, record.get("start_sha256", ""))


def _report(job: FinetuneRun, run: Path, console: Console) -> dict[str, Any]:
    config, language, records = job.config, job.prepared.language, read_metrics(run)
    best = _best(records)
    if best is None:
        raise ConfigError(f"{run / METRICS} has no validation loss any more: start a new run")
    test = job.prepared.sets.get("test")
    scores: dict[str, Any] = {}
    found: Predictions | None = None
    with working("testing, and plain baselines"):
        model, _, record = load_finetuned(run)
        losses = TaskLosses(model.to(job.device), config.task.kind, language.answers).to(job.device)
        size = config.run.evaluation_batch_size
        if config.task.kind == "generation":
            scores = _report_generation(job, losses, run)
        elif config.task.kind == "tagging" and test is not None:
            tagged = report_tags(losses, test, language, size, job.device, run, seed=job.seed)
            scores = {k: list(v) for k, v in tagged.items()}
        elif test is not None:
            found = predict_rows(losses, test, language, size, job.device, labelled=True)
            write_predictions(run / "predictions.tsv", found, language)
            scores = {k: list(v) for k, v in score_predictions(found, language, run, seed=job.seed).items()}
        rivals = rival_scores(job.prepared.sets, language, seed=job.seed)
    if found is not None:
        _warn_of_one_class(found, language, console)
    results = {
        "steps": len(records),
        "epochs": sum("validation_loss" in r for r in records),
        "seconds": sum(r["seconds"] for r in records),
        "best_step": best["step"] + 1,
        "validation_loss": best["validation_loss"],
        "test": scores,
        "baselines": {name: {k: list(v) for k, v in of.items()} for name, of in rivals.items()},
    }
    draw_finetuning(job, run)
    write_json(run / "results.json", results)
    write_model_card(run, record, results)
    for name, value in scores.items():
        text = (
            f"{value[0]:.4f} ({value[1]:.4f} to {value[2]:.4f})"
            if isinstance(value, list)
            else f"{value:.4f}"
        )
        beside = "".join(f"; {rival} {of[name][0]:.4f}" for rival, of in rivals.items())
        console.print(f"test {name:24} {text}{beside}", highlight=False, soft_wrap=True)
    return results


def _warn_of_one_class(found: Predictions, language: Language, console: Console) -> None:
    if language.template.kind != "classification":
        return
    only = only_class(found.values, found.truth)
    if only is not None:
        console.print(
            f"warning: all {len(found.values)} test rows are predicted as {language.classes[only]}: the model has not "
            "learned to tell the classes apart; try more epochs, another optimizer.lr, or task.balanced = true",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )


def _report_generation(job: FinetuneRun, losses: TaskLosses, run: Path) -> dict[str, Any]:
    config, prepared = job.config, job.prepared
    test = prepared.sets.get("test", job.validation)
    size = config.run.evaluation_batch_size
    scores: dict[str, Any] = {"nats_per_bp": mean_loss(losses, test, size, job.device)}
    bases = max(map(len, test.examples.sequence))
    texts = sample_texts(losses, test, bases, config.sampling, config.sampling.count or len(test), job.device)
    write_rows(run / "made.tsv", ["sequence"], [[text] for text in texts])
    if prepared.panel is not None:
        found, _ = report_haplotypes(texts, prepared.panel, prepared.panel_rows, run)
        scores |= found
    return scores
