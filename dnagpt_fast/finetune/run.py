"""Fine-tuning: a start, labelled sequences and settings in, a run folder out. The loop is that of pre-training.

RUN/config.json        settings, model, template, classes, standardisation, hashes, versions
    metrics.jsonl      one object a step; those that end an epoch hold validation_loss
    checkpoints/       see weights/checkpoint.py; what --resume goes on from
    model.safetensors  the weights with the lowest validation loss, by their official names
    results.json, predictions.tsv, test.png (haplotypes.png, made.haps), README.md   the report on the test rows
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dnagpt_fast.finetune.data.tables import write_rows
from dnagpt_fast.finetune.job import FinetuneRun
from dnagpt_fast.finetune.model_card import write_model_card
from dnagpt_fast.finetune.predict import WEIGHTS, load_finetuned
from dnagpt_fast.finetune.report import (
    mean_loss,
    predict_rows,
    report_haplotypes,
    sample_texts,
    score_predictions,
    write_predictions,
)
from dnagpt_fast.finetune.settings import ConfigError, FinetuneConfig
from dnagpt_fast.finetune.task_loss import TaskLosses
from dnagpt_fast.output_files import whole, write_json
from dnagpt_fast.training.log import MetricsLog, read_metrics
from dnagpt_fast.training.loop import StopRequest
from dnagpt_fast.training.processes import Processes, pick_device
from dnagpt_fast.training.progress import TrainingProgress
from dnagpt_fast.weights import checkpoint
from dnagpt_fast.weights.checkpoint_writer import CheckpointWriter
from dnagpt_fast.weights.run_folder import raise_if_refused, refused_changes
from dnagpt_fast.weights.tensor_files import write_safetensors

# What a resumed run may change: how it runs and how it is judged, not what it computes.
FREE_ON_RESUME = ("run.device", "run.timeout_s", "run.keep", "run.evaluation_batch_size", "sampling")


@dataclass(frozen=True)
class Outcome:
    """steps: optimizer steps done. stopped_by: the signal that ended the run early, or None. results: results.json."""

    steps: int
    stopped_by: str | None
    results: dict[str, Any] | None


def finetune(
    config: FinetuneConfig, run: Path, *, resume: bool = False, console: Console | None = None
) -> list[Outcome]:
    """Tunes into the folder `run`; several runs into run/run-0, run/run-1, ... and run/summary.json.

    With `resume` from the newest checkpoint, or from the start if there is none. Under torchrun each process has a
    replica; what it returns is the same in all. Raises ConfigError, LabelError, NonFiniteLoss, OSError.
    """
    processes = Processes.from_environment()
    console = console or Console(stderr=True, quiet=not processes.is_main)
    device = pick_device(config.run.device, processes.local_rank)
    with processes.joined(device, config.run.timeout_s):
        if processes.first((run / "config.json").exists()) and not resume:
            raise ConfigError(
                f"{run} holds a run already: continue it with --resume, or choose another folder"
            )
        if config.run.runs == 1:
            job = FinetuneRun(config, config.run.seed, processes=processes)
            return [_one_run(job, run, resume, console)]
        return _several_runs(config, run, processes, resume, console)


def _several_runs(
    config: FinetuneConfig, run: Path, processes: Processes, resume: bool, console: Console
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    prepared = None
    for i in range(config.run.runs):
        job = FinetuneRun(config, config.run.seed + i, prepared, processes)
        prepared = job.prepared
        if i == 0 and processes.is_main:
            # so that --resume finds the settings, and another start finds the folder taken
            run.mkdir(parents=True, exist_ok=True)
            write_json(run / "config.json", job.record())
        outcomes.append(_one_run(job, run / f"run-{i}", resume, console))
        if outcomes[-1].stopped_by is not None:
            return outcomes
    summary = summarise([o.results for o in outcomes if o.results is not None])
    if processes.is_main:
        write_json(run / "summary.json", summary)
    for name in outcomes[0].results["test"] if outcomes[0].results else ():
        told = f"{summary[name]['mean']:.4f} ± {summary[name]['sd']:.4f}"
        console.print(f"{config.run.runs} runs {name:22} {told}", highlight=False)
    return outcomes


def summarise(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation (of the sample) over runs of each test score."""
    found: dict[str, Any] = {"runs": len(results)}
    for name in results[0]["test"]:
        values = [
            r["test"][name][0] if isinstance(r["test"][name], list) else r["test"][name] for r in results
        ]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        found[name] = {"mean": float(np.mean(values)), "sd": spread, "values": values}
    return found


def _one_run(job: FinetuneRun, run: Path, resume: bool, console: Console) -> Outcome:
    """Files are process 0's work alone, and so is what is decided by them; the others are told."""
    processes = job.processes
    first_step = _resume(job, run, console) if resume else 0
    if processes.is_main:
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "config.json", job.record())
    counts = ", ".join(f"{name} {len(data):,}" for name, data in job.prepared.sets.items())
    console.print(f"rows: {counts}; {job.adaptation.trained:,} parameters are tuned", highlight=False)
    with StopRequest().listening() as stop:
        done = _train(job, run, first_step, stop, console)
    if not _finished(job, run, done):
        # Another process may be the one that got the signal.
        name = stop.signal_name or "SIGTERM"
        console.print(f"stopped by {name} after step {done} of {job.steps}; continue with --resume")
        return Outcome(done, name, None)
    return Outcome(done, None, processes.first(_report(job, run, console) if processes.is_main else None))


def _train(job: FinetuneRun, run: Path, first_step: int, stop: StopRequest, console: Console) -> int:
    config, done = job.config, first_step
    if _finished(job, run, first_step):
        return done
    metrics = MetricsLog(run, first_step) if job.processes.is_main else None
    record = job.record()
    try:
        with (
            CheckpointWriter(run, config.run.keep, job.processes, config.run.timeout_s) as writer,
            TrainingProgress(console, first_step, job.steps) as progress,
        ):
            for report in job.loop.run(first_step, job.steps, stop):
                done = report.step + 1
                line = {
                    "step": report.step,
                    **report.losses,
                    "lr": report.lr,
                    "grad_norm": report.grad_norm,
                    "seconds": report.seconds,
                }
                figures = f"loss {report.losses['loss']:.4f}"
                epoch_ends = done % job.steps_per_epoch == 0
                if epoch_ends:
                    line["validation_loss"] = job.validation_loss()
                    figures += f"  validation {line['validation_loss']:.4f}"
                if metrics is not None:
                    best = _best(read_metrics(run)) if epoch_ends else None
                    if epoch_ends and (best is None or line["validation_loss"] < best["validation_loss"]):
                        with whole(run / WEIGHTS) as temporary:
                            write_safetensors(temporary, job.adaptation.state())
                    metrics.write(line)
                progress.update(done, figures)
                ended = done == job.steps or report.stop
                if ended or epoch_ends:
                    writer.save(done, job.model, job.optimizer, record)
                if epoch_ends and _patience_spent(job, run):
                    break
    finally:
        if metrics is not None:
            metrics.close()
    return done


def _best(records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The step with the lowest validation loss so far, the first of equals."""
    evaluated = [r for r in records if "validation_loss" in r]
    return min(evaluated, key=lambda r: r["validation_loss"]) if evaluated else None


def _patience_spent(job: FinetuneRun, run: Path) -> bool:
    return job.processes.first(job.processes.is_main and _epochs_without_gain(job, run))


def _epochs_without_gain(job: FinetuneRun, run: Path) -> bool:
    """As many of them as the settings have patience for."""
    records = [r for r in read_metrics(run) if "validation_loss" in r]
    best = _best(records)
    if best is None or not job.config.run.patience:
        return False
    return sum(r["step"] > best["step"] for r in records) >= job.config.run.patience


def _finished(job: FinetuneRun, run: Path, done: int) -> bool:
    return done == job.steps or _patience_spent(job, run)


def _resume(job: FinetuneRun, run: Path, console: Console) -> int:
    for line in checkpoint.damaged(run):
        console.print(f"left out: {line}", style="yellow")
    start = job.processes.first(checkpoint.newest(run))
    if start is None:
        console.print(f"{run} holds no checkpoint yet: starting from step 0")
        return 0
    refused = refused_changes(start, job.config, FREE_ON_RESUME)
    before = start.config()["hashes"]
    if before != job.prepared.hashes:
        refused["the data"] = before, job.prepared.hashes
    raise_if_refused(run, refused)
    start.load(job.model, job.optimizer)
    console.print(f"resuming from {start.path}, step {start.step} of {job.steps}")
    return start.step


def _report(job: FinetuneRun, run: Path, console: Console) -> dict[str, Any]:
    config, language, records = job.config, job.prepared.language, read_metrics(run)
    best = _best(records)
    assert best is not None
    model, _, record = load_finetuned(run)
    losses = TaskLosses(model.to(job.device), config.task.kind, language.answers).to(job.device)
    test = job.prepared.sets.get("test")
    scores: dict[str, Any] = {}
    size = config.run.evaluation_batch_size
    if config.task.kind == "generation":
        scores = _report_generation(job, losses, run)
    elif test is not None:
        found = predict_rows(losses, test, language, size, job.device, labelled=True)
        write_predictions(run / "predictions.tsv", found, language)
        scores = {k: list(v) for k, v in score_predictions(found, language, run, seed=job.seed).items()}
    results = {
        "steps": len(records),
        "epochs": sum("validation_loss" in r for r in records),
        "seconds": sum(r["seconds"] for r in records),
        "best_step": best["step"] + 1,
        "validation_loss": best["validation_loss"],
        "test": scores,
    }
    write_json(run / "results.json", results)
    write_model_card(run, record, results)
    for name, value in scores.items():
        told = (
            f"{value[0]:.4f} ({value[1]:.4f} to {value[2]:.4f})"
            if isinstance(value, list)
            else f"{value:.4f}"
        )
        console.print(f"test {name:24} {told}", highlight=False)
    return results


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
