"""Pre-training from packed genomes: settings in, a run folder out.

RUN/config.json      settings, model, held-out ranges, implementations and versions
    metrics.jsonl    one object a step
    checkpoints/     see weights/checkpoint.py
    validation.json  the last validation report
    loss.png         the curve beside the baselines
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.output_files import write_json
from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.placement import told
from dnagpt_fast.pretrain.schedule import SETTLED, lengthened, oddities
from dnagpt_fast.pretrain.settings import PretrainConfig
from dnagpt_fast.pretrain.validation import UNIFORM, ValidationReport
from dnagpt_fast.training.figures import peak_memory_gib
from dnagpt_fast.training.log import MetricsLog, TensorBoardLog, draw_losses, read_metrics
from dnagpt_fast.training.loop import StepReport, StopRequest
from dnagpt_fast.training.processes import Processes, pick_device
from dnagpt_fast.training.progress import TrainingProgress
from dnagpt_fast.training.settings import ConfigError
from dnagpt_fast.vocab import Vocabulary
from dnagpt_fast.weights import checkpoint
from dnagpt_fast.weights.checkpoint_writer import CheckpointWriter
from dnagpt_fast.weights.run_folder import raise_if_refused, refused_changes, settings_of

# What a resumed run may change: how it runs, not what it computes.
FREE_ON_RESUME = (
    "run.device",
    "run.tensorboard",
    "run.timeout_s",
    "run.micro_batch_size",
    "parallel.",
    "checkpoint.",
    "validation.",
    "data.genome",
)
# Where metrics.jsonl keeps what a validation in the middle of a run found.
HELD_OUT = "held_out_nats_per_bp"
# Genomes are compared by these: their files may have moved.
GENOME_KEYS = ("species", "weight", "held_out", "fingerprint")


@dataclass(frozen=True)
class Outcome:
    """steps: optimizer steps done in all. stopped_by: the signal that ended the run early, or None."""

    steps: int
    stopped_by: str | None
    report: ValidationReport | None


def pretrain(
    config: PretrainConfig, run: Path, *, resume: bool = False, console: Console | None = None
) -> Outcome:
    """Trains into the folder `run`. With `resume` from its newest checkpoint, or from step 0 if it has none.

    Raises ConfigError (settings that do not fit, or a folder that holds another run), NonFiniteLoss, OSError.
    """
    processes = Processes.from_environment()
    console = console or Console(stderr=True, quiet=not processes.is_main)
    device = pick_device(config.run.device, processes.local_rank)
    with processes.joined(device, config.run.timeout_s):
        # What is on disk is looked at by one process, so that all go on from the same step.
        start, taken = processes.first(_look(run) if processes.is_main else None)
        if taken and not resume:
            raise ConfigError(
                f"{run} holds a run already: continue it with --resume, or choose another folder"
            )
        if start is not None:
            config = lengthened(config, settings_of(start, PretrainConfig), start.step)
        for line in oddities(config):
            console.print(f"warning: {line}", style="yellow", highlight=False, soft_wrap=True)
        job = PretrainingRun(config, processes)
        console.print(told(job.placement, len(job.mix.genomes), device), highlight=False, soft_wrap=True)
        first_step = _resume(job, run, start, console) if resume else 0
        if processes.is_main:
            run.mkdir(parents=True, exist_ok=True)
            write_json(run / "config.json", job.record())
        with StopRequest().listening() as stop:
            done = _train(job, run, first_step, stop, console)
        if done == config.run.steps:
            report = _validate(job, run, done, console)
            if processes.is_main:
                _draw(job, run, report)
            return Outcome(done, None, report)
    # Another process may be the one that got the signal.
    name = stop.signal_name or "SIGTERM"
    console.print(
        f"stopped by {name} after step {done} of {config.run.steps}; the checkpoint is in "
        f"{run / checkpoint.FOLDER}; continue with --resume"
    )
    return Outcome(done, name, None)


def _look(run: Path) -> tuple[checkpoint.Checkpoint | None, bool]:
    """The newest checkpoint of a folder, and whether it holds a run."""
    start = checkpoint.newest(run)
    return start, start is not None or (run / "config.json").exists()


def _train(job: PretrainingRun, run: Path, first_step: int, stop: StopRequest, console: Console) -> int:
    """Trains to the end or to a stop; returns the steps done. Files are process 0's work alone."""
    config, done = job.config, first_step
    record = job.record()
    with contextlib.ExitStack() as files:
        settings = config.checkpoint
        writer = files.enter_context(
            CheckpointWriter(run, settings.keep, job.processes, config.run.timeout_s)
        )
        logs: list[MetricsLog | TensorBoardLog] = []
        if job.processes.is_main:
            kinds: list[type[MetricsLog] | type[TensorBoardLog]] = [MetricsLog]
            if config.run.tensorboard:
                kinds.append(TensorBoardLog)
            for kind in kinds:
                logs.append(kind(run, first_step))
                files.callback(logs[-1].close)
        progress = files.enter_context(TrainingProgress(console, first_step, config.run.steps))
        for report in job.loop.run(first_step, config.run.steps, stop):
            done = report.step + 1
            line = _line(job, report)
            last = done == config.run.steps or report.stop
            every = config.validation.every_steps
            if not last and every and done % every == 0:
                held_out = _validate(job, run, done, console)
                if held_out is not None:
                    line |= {HELD_OUT: held_out.nats_per_bp}
            for log in logs:
                log.write(line)
            progress.update(done, _figures(line))
            if last or (settings.every_steps and done % settings.every_steps == 0):
                writer.save(done, job.model, job.loop.optimizer, record)
            if writer.broken:
                stop.signal_name = (
                    stop.signal_name or "a checkpoint that failed"
                )  # for all, after the next step
    return done


def _line(job: PretrainingRun, report: StepReport) -> dict[str, Any]:
    return {
        "step": report.step,
        **report.losses,
        "lr": report.lr,
        "grad_norm": report.grad_norm,
        "seconds": report.seconds,
        **job.cost.rates(report.seconds),
        "peak_memory_gib": peak_memory_gib(job.device),
        **job.loop.clock.shares(),
    }


def _figures(line: dict[str, Any]) -> str:
    return (
        f"loss {line['loss']:.4f}  {line['nats_per_bp']:.4f} nats/bp  "
        f"{line['tokens_per_s']:,.0f} tokens/s  {line['bp_per_s']:,.0f} bp/s  "
        f"{line['mfu']:.0%} of peak"
    )


def _resume(job: PretrainingRun, run: Path, start: checkpoint.Checkpoint | None, console: Console) -> int:
    for line in checkpoint.damaged(run):
        console.print(f"left out: {line}", style="yellow")
    if start is None:
        console.print(f"{run} holds no checkpoint yet: starting from step 0")
        return 0
    refused = refused_changes(start, job.config, (*FREE_ON_RESUME, *SETTLED))
    genomes = [
        [{key: genome[key] for key in GENOME_KEYS} for genome in record["genomes"]]
        for record in (start.config(), json.loads(json.dumps(job.record())))
    ]
    if genomes[0] != genomes[1]:
        refused["data.genomes"] = (genomes[0], genomes[1])
    raise_if_refused(run, refused)
    start.load(job.model, job.loop.optimizer)
    console.print(f"resuming from {start.path}, step {start.step} of {job.config.run.steps}")
    return start.step


def _validate(job: PretrainingRun, run: Path, steps: int, console: Console) -> ValidationReport | None:
    if job.validator is None:
        console.print("no held-out ranges (data.held_out_tail = 0): no validation")
        return None
    template = job.maker.template
    report = job.validator(
        lambda batch: job.losses.answers(batch, template),
        job.device,
        job.processes,
        bf16=job.config.run.precision == "bf16",
    )
    if job.processes.is_main:
        write_json(run / "validation.json", {"step": steps, **report.to_dict()})
    table = Table(title=f"validation after {steps} steps", show_header=False)
    for label, value in report.rows():
        table.add_row(label, value)
    console.print(table)
    return report


def _draw(job: PretrainingRun, run: Path, report: ValidationReport | None) -> None:
    points = [(line["step"] + 1, line[HELD_OUT]) for line in read_metrics(run) if HELD_OUT in line]
    if report is not None:
        points.append((job.config.run.steps, report.nats_per_bp))
    levels = {"uniform": UNIFORM}
    if job.validator is not None:
        chains = job.validator.chains
        levels[f"order-{chains.usual_order} Markov chain, held out"] = job.validator.markov_nats_per_bp
        levels[f"best Markov chain (order {chains.best_order}), held out"] = job.validator.best_nats_per_bp
    label = "training loss, nats per base pair"
    draw_losses(run, "nats_per_bp", label, levels, {"held out": points} if points else None)


def load_run(run: Path) -> tuple[DNAGPT, Vocabulary, dict[str, Any]]:
    """The model (eval mode, CPU), vocabulary and record of a run's newest checkpoint, or of a checkpoint folder.

    Raises CheckpointError where there is none.
    """
    found = checkpoint.open_checkpoint(run)
    record = found.config()
    model = DNAGPT.from_config(ModelConfig.from_dict(record["model"]))
    model.load_state_dict(found.weights())
    return model.eval(), Vocabulary(**record["vocabulary"]), record
