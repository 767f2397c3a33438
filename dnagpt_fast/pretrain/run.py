"""Runs pre-training with given settings into a run folder.

RUN/config.json      settings, model, held-out ranges, implementations and versions
    metrics.jsonl    one object per step
    checkpoints/     see training/checkpoint.py
    validation.json  the last validation report
    loss.png, .svg   the loss curve with the baselines; the .png is also redrawn at checkpoints
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.output_files import write_json
from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.mix import recorded
from dnagpt_fast.pretrain.placement import log_line
from dnagpt_fast.pretrain.schedule import SETTLED, lengthened, oddities
from dnagpt_fast.pretrain.settings import PretrainConfig
from dnagpt_fast.pretrain.validation import UNIFORM, ValidationReport
from dnagpt_fast.progress import standard_error
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.devices import pick_device
from dnagpt_fast.training.engine import Course, Outcome, StepNote, find_start, restore, train
from dnagpt_fast.training.figures import peak_memory_gib
from dnagpt_fast.training.log import read_metrics
from dnagpt_fast.training.loop import StepReport
from dnagpt_fast.training.loss_curve import Redrawing, draw_losses
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.run_folder import part_of, settings_of
from dnagpt_fast.training.run_lock import sole_writer
from dnagpt_fast.vocab import Vocabulary
from dnagpt_fast.weights.forms import load_folder
from dnagpt_fast.weights.start import other_start, start_then

# Settings that a resumed run may change: they decide how it runs, not what it computes.
FREE_ON_RESUME = (
    "run.device",
    "run.tensorboard",
    "run.timeout_s",
    "run.micro_batch_size",
    "parallel.",
    "checkpoint.",
    "validation.",
    "data.genome",
    "start.path",
)
# Key in metrics.jsonl of a validation's loss during a run.
HELD_OUT = "held_out_nats_per_bp"
# Genomes are compared by these keys, not by path: their files may have been moved. Runs of earlier versions
# have no content_hash.
GENOME_KEYS = ("species", "weight", "held_out", "fingerprint", "content_hash")


def pretrain(
    config: PretrainConfig, run: Path, *, resume: bool = False, console: Console | None = None
) -> Outcome:
    """Trains into the folder `run`. With `resume` it continues from the newest checkpoint, or starts if there
    is none.

    The outcome's report is the last ValidationReport. Raises ConfigError (settings that do not fit, or a folder that
    holds another run), CheckpointError, NonFiniteLoss, OSError.
    """
    processes = Processes.from_environment()
    console = console or standard_error(main=processes.is_main)
    device = pick_device(config.run.device, processes.local_rank)
    with processes.joined(device, config.run.timeout_s), sole_writer(run, processes):
        start = find_start(run, processes, resume=resume)
        if start is not None:
            config = lengthened(config, settings_of(start, PretrainConfig), start.step)
        for line in oddities(config):
            console.print(f"warning: {line}", style="yellow", highlight=False, soft_wrap=True)
        job = PretrainingRun(config, processes, start)
        console.print(log_line(job.placement, len(job.mix.genomes), device), highlight=False, soft_wrap=True)
        console.print(job.arithmetic, highlight=False, soft_wrap=True)
        first_step = 0
        if resume:
            first_step = restore(
                job,
                run,
                start,
                console,
                (*FREE_ON_RESUME, *SETTLED),
                lambda record, path: _other_contents(record, job, path),
            )
        outcome = train(job, run, first_step, _course(job, run, console), console)
        if outcome.stopped_by is not None:
            return outcome
        report = _validate(job, run, outcome.steps, console)
        if processes.is_main:
            _draw(job, run, report)
        return replace(outcome, report=report)


def _course(job: PretrainingRun, run: Path, console: Console) -> Course:
    config = job.config

    def after_step(report: StepReport) -> StepNote:
        done = report.step + 1
        line = {
            **job.cost.rates(report.seconds),
            "peak_memory_gib": peak_memory_gib(job.device),
            **job.loop.clock.shares(),
        }
        last = done == job.steps or report.stop
        if not last and config.validation.every_steps and done % config.validation.every_steps == 0:
            held_out = _validate(job, run, done, console)
            if held_out is not None:
                line[HELD_OUT] = held_out.nats_per_bp
        every = config.checkpoint.every_steps
        return StepNote(line, _figures(report, line), bool(every) and done % every == 0)

    def pause(done: int) -> bool:
        return any(
            every and done % every == 0
            for every in (config.checkpoint.every_steps, config.validation.every_steps)
        )

    return Course(
        after_step,
        pause=pause,
        keep=config.checkpoint.keep,
        timeout_s=config.run.timeout_s,
        tensorboard=config.run.tensorboard,
        saved=Redrawing(lambda: _draw(job, run, None, vector=False), console),
    )


def _figures(report: StepReport, line: dict[str, Any]) -> str:
    return (
        f"loss {report.losses['loss']:.4f}  {report.losses['nats_per_bp']:.4f} nats/bp  "
        f"{line['tokens_per_s']:,.0f} tokens/s  {line['bp_per_s']:,.0f} bp/s  "
        f"{line['mfu']:.0%} of peak"
    )


def _other_contents(record: dict[str, Any], job: PretrainingRun, path: Path) -> dict[str, tuple[Any, Any]]:
    """The contents of the genomes and the start, before and now, where they differ from a checkpoint's record, the file
    `path`."""
    before, now = part_of(record, "genomes", list, path), json.loads(json.dumps(job.record()["genomes"]))
    if len(before) != len(now) or not all(isinstance(genome, dict) for genome in before):
        return {"the number of data.genomes": (len(before), len(now))}
    # Earlier versions recorded lists of any length.
    before = [
        {**genome, "held_out": recorded(genome["held_out"])}
        if isinstance(genome.get("held_out"), list)
        else genome
        for genome in before
    ]
    found = {
        f"{key} of {new['path']} (data.genomes)": (old[key], new[key])
        for old, new in zip(before, now, strict=True)
        for key in GENOME_KEYS
        if key in old and old[key] != new[key]
    }
    begun = record.get("start", {})
    start = begun.get("sha256", "") if isinstance(begun, dict) else ""
    return found | other_start(start_then(record, path), job.config.start, start)


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
    title = f"validation after {steps} steps"
    if console.is_terminal:
        table = Table(title=title, show_header=False)
        for label, value in report.rows():
            table.add_row(label, value)
        console.print(table)
    else:  # one line in a log
        figures = "  ".join(f"{label.strip()} {value}" for label, value in report.rows())
        console.print(f"{title}: {figures}", highlight=False, soft_wrap=True)
    return report


def _draw(job: PretrainingRun, run: Path, report: ValidationReport | None, *, vector: bool = True) -> None:
    points = [(line["step"] + 1, line[HELD_OUT]) for line in read_metrics(run) if HELD_OUT in line]
    if report is not None:
        points.append((job.config.run.steps, report.nats_per_bp))
    levels = {"uniform": UNIFORM}
    if job.validator is not None:
        chains = job.validator.chains
        levels[f"order-{chains.usual_order} Markov chain, held out"] = job.validator.markov_nats_per_bp
        levels[f"best Markov chain (order {chains.best_order}), held out"] = job.validator.best_nats_per_bp
    draw_losses(
        run,
        "nats_per_bp",
        "next-token loss (nats per base pair)",
        levels,
        {"held out": points} if points else None,
        title=f"pre-training: {run.resolve().name}",
        vector=vector,
    )


def load_run(run: Path) -> tuple[DNAGPT, Vocabulary, dict[str, Any]]:
    """The model (eval mode, CPU), vocabulary and record of a run's newest checkpoint, or of a checkpoint folder.

    Raises CheckpointError if there is no checkpoint.
    """
    model, tokenizer, record = load_folder(checkpoint.open_checkpoint(run).path)
    return model, tokenizer.vocabulary, record
