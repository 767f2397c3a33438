"""Pre-training from packed genomes: settings in, a run folder out.

RUN/config.json      settings, model, held-out ranges, implementations and versions
    metrics.jsonl    one object a step
    checkpoints/     see training/checkpoint.py
    validation.json  the last validation report
    loss.png         the curve beside the baselines
"""

import contextlib
import dataclasses
import json
import platform
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from dnagpt_fast import ops
from dnagpt_fast.accelerators import peak_flops
from dnagpt_fast.batch import PretrainBatch, Windows
from dnagpt_fast.config import ModelConfig, preset
from dnagpt_fast.flops import step_flops
from dnagpt_fast.genome.batches import BatchMaker, Template
from dnagpt_fast.genome.mix import GenomeMix
from dnagpt_fast.genome.placement import place_on, told
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.model import DNAGPT
from dnagpt_fast.output_files import whole
from dnagpt_fast.step_memory import step_memory
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.checkpoint_writer import CheckpointWriter
from dnagpt_fast.training.figures import StageClock, StepCost, peak_memory_gib
from dnagpt_fast.training.host_memory import return_freed_tensors
from dnagpt_fast.training.loop import Loop, StepReport, StopRequest
from dnagpt_fast.training.metrics import MetricsLog, TensorBoardLog, draw_losses
from dnagpt_fast.training.optimizer import build_optimizer, warmup_cosine
from dnagpt_fast.training.parallel import distribute
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.progress import TrainingProgress
from dnagpt_fast.training_config import ConfigError, PretrainConfig, from_tree
from dnagpt_fast.validation import (
    UNIFORM,
    Answers,
    ValidationReport,
    Validator,
    answers_of,
    fit_markov,
    held_out_windows,
)
from dnagpt_fast.vocab import Vocabulary

FORMAT = 1
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
# Genomes are compared by these: their files may have moved.
GENOME_KEYS = ("species", "weight", "held_out", "fingerprint")


@dataclass(frozen=True)
class Outcome:
    """steps: optimizer steps done in all. stopped_by: the signal that ended the run early, or None."""

    steps: int
    stopped_by: str | None
    report: ValidationReport | None


class PretrainingLosses(nn.Module):
    """batch -> the losses by name, as training/loop.py wants them."""

    def __init__(self, model: DNAGPT, order_weight: float, gc_weight: float, length_bp: int) -> None:
        super().__init__()
        self.model = model
        self.order_weight = order_weight
        self.gc_weight = gc_weight
        self.length_bp = length_bp

    def forward(self, batch: PretrainBatch) -> dict[str, torch.Tensor]:
        parts = self.model.pretraining_loss(batch, order_weight=self.order_weight, gc_weight=self.gc_weight)
        # All that a sample's next tokens cost, spread over the base pairs of its window.
        rows = batch.token_ids.shape[1] - 1
        nats_per_bp = parts.next_token * (rows / self.length_bp)
        return {
            "loss": parts.total,
            "next_token": parts.next_token,
            "order": parts.order,
            "gc": parts.gc,
            "nats_per_bp": nats_per_bp,
        }

    def answers(self, batch: PretrainBatch, template: Template) -> Answers:
        """What validation asks. A method of this module, because it is the one that gathers weights in shards."""
        return answers_of(self.model, batch, template)


def model_config(config: PretrainConfig) -> ModelConfig:
    """The model's shape: a published one with the settings' own values in place of its. Raises ConfigError."""
    settings = config.model
    vocab_size = len(Vocabulary(config.vocabulary.k, config.vocabulary.dynamic))
    names = ("max_len", "num_layers", "num_heads", "embedding_dim")
    given = {name: getattr(settings, name) for name in names if getattr(settings, name)}
    try:
        return dataclasses.replace(preset(settings.name, vocab_size), bias=settings.bias, **given)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error


class PretrainingRun:
    """Everything of a run, built and checked before the first step. Raises ConfigError, ValueError, OSError."""

    def __init__(self, config: PretrainConfig, processes: Processes) -> None:
        self.config = config
        self.processes = processes
        self.device = pick_device(config.run.device, processes.local_rank)
        shape = model_config(config)
        vocabulary = Vocabulary(config.vocabulary.k, config.vocabulary.dynamic)
        names = config.template
        template = Template.build(vocabulary, names.gc_prompt, names.order_prompt, names.order_answers)
        n_kmers = config.data.n_kmers or shape.max_len - template.n_extra
        if n_kmers + template.n_extra > shape.max_len:
            raise ConfigError(
                f"data.n_kmers = {n_kmers} and {template.n_extra} tokens of the template: "
                f"model.max_len is {shape.max_len}"
            )
        self.mix = GenomeMix.open(config.data)
        genomes = [genome.arrays for genome in self.mix.genomes]
        self.maker = BatchMaker(genomes, self.mix.species, n_kmers, vocabulary, template)
        self.sampler = WindowSampler(
            genomes,
            self.maker.length_bp,
            seed=config.data.seed,
            weights=self.mix.weights,
            held_out=self.mix.held_out,
            labels=self.mix.labels,
            reversed_share=config.data.reversed_share,
            reverse_complement_share=config.data.reverse_complement_share,
            max_n_share=config.data.max_n_share,
        )
        mine = processes.share(config.run.batch_size, "run.batch_size")
        self.part_size = config.run.micro_batch_size or len(mine)
        if len(mine) % self.part_size:
            raise ConfigError(
                f"run.micro_batch_size = {self.part_size} does not divide the {len(mine)} samples of a process and step"
            )
        self.first_sample, self.parts = mine.start, len(mine) // self.part_size
        self.held_out = self._held_out_windows()
        self.placement = place_on(self.device, genomes, self._step_bytes(shape))
        # Training draws from here; validation reads its few windows from the mapped files.
        self.drawer = self.maker
        if self.placement.resident:
            moved = [genome.to(self.device) for genome in genomes]
            self.drawer = BatchMaker(moved, self.mix.species, n_kmers, vocabulary, template)
        for genome in self.mix.genomes:
            genome.expect_random_reads()
        torch.manual_seed(config.run.seed)
        self.model = DNAGPT.from_config(shape)
        # Numbers enter no pre-training sample, so their embedding would only be carried along by the optimizer.
        self.model.number_embedding.requires_grad_(False)
        self.losses = PretrainingLosses(
            self.model, config.loss.order_weight, config.loss.gc_weight, self.maker.length_bp
        )
        self.cost, self.peak_source = self._cost()
        settings = config.optimizer
        self.lr_at = warmup_cosine(
            settings.lr, config.schedule.warmup_steps, config.run.steps, config.schedule.min_lr_share
        )

    @cached_property
    def loop(self) -> Loop:
        """The model distributed, its optimizer and what turns them: made when first asked for, by all processes at once
        (`Processes.joined`)."""
        config, settings, parallel = self.config, self.config.optimizer, self.config.parallel
        bf16 = config.run.precision == "bf16"
        if parallel.activation_checkpointing:
            self.model.recompute_blocks()
        if parallel.compile_blocks:
            self.model.compile_blocks()
        losses = distribute(
            self.losses,
            self.model.blocks,
            parallel.sharding,
            self.processes,
            self.device,
            bf16=bf16,
            methods=["answers"],
        )
        clock = StageClock(self.device)
        clock.mark_after(self.model.transformer.ln_f, "loss")
        if self.processes.world_size > 1:
            clock.watch_gradients(p for p in self.model.parameters() if p.requires_grad)
        return Loop(
            losses_of=losses,
            optimizer=build_optimizer(
                self.model,
                lr=settings.lr,
                betas=(settings.beta1, settings.beta2),
                eps=settings.eps,
                weight_decay=settings.weight_decay,
            ),
            batch_at=self.batch_at,
            lr_at=self.lr_at,
            describe=lambda batch: self.mix.describe(batch.windows, self.maker.length_bp),
            parts=self.parts,
            clip_norm=settings.clip_norm,
            bf16=bf16,
            device=self.device,
            processes=self.processes,
            clock=clock,
        )

    def batch_at(self, step: int, part: int) -> PretrainBatch:
        """The micro-batch `part` of this process in `step`: samples by arithmetic on their indices, nothing else."""
        first = step * self.config.run.batch_size + self.first_sample + part * self.part_size
        return self.drawer.sampled(self.sampler, first, self.part_size).to(self.device)

    def _step_bytes(self, shape: ModelConfig) -> int:
        """What the model and a step will need of a GPU at most."""
        parallel = self.config.parallel
        return step_memory(
            shape,
            self.part_size,
            self.maker.n_tokens,
            device="cuda",
            precision=self.config.run.precision,
            shards=self.processes.world_size if parallel.sharding == "fsdp" else 1,
            checkpointing=parallel.activation_checkpointing,
        ).total

    def record(self) -> dict[str, Any]:
        """What config.json holds, here and in every checkpoint."""
        return {
            "format": FORMAT,
            "kind": "pretrain",
            "model": self.model.config.to_dict(),
            "vocabulary": dataclasses.asdict(self.config.vocabulary),
            "n_kmers": self.maker.n_kmers,
            "settings": self.config.to_dict(),
            "genomes": [
                {**dataclasses.asdict(settings), "fingerprint": fingerprint}
                for settings, fingerprint in zip(self.mix.settings, self.mix.fingerprints(), strict=True)
            ],
            "step_flops": self.cost.flops,
            "peak_flops": {"per_process": self.cost.peak_flops, "source": self.peak_source},
            "corpus": dataclasses.asdict(self.placement),
            "report": ops.report(),
            "versions": versions(),
        }

    def _cost(self) -> tuple[StepCost, str]:
        config, samples = self.config, self.config.run.batch_size
        precision = config.run.precision
        if precision == "fp32" and self.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
            precision = "tf32"
        peak, source = peak_flops(self.device, precision)
        cost = StepCost(
            tokens=samples * self.maker.n_tokens,
            bp=samples * self.maker.length_bp,
            flops=step_flops(self.model.config, samples, self.maker.n_tokens).total,
            peak_flops=peak,
            processes=self.processes.world_size,
        )
        return cost, source

    def _held_out_windows(self) -> Windows | None:
        if not any(len(ranges) for ranges in self.mix.held_out):
            return None
        most, max_n_bp = self.config.validation.max_windows, self.sampler.max_n_bp
        return held_out_windows(self.maker.genomes, self.mix.held_out, self.maker.length_bp, max_n_bp, most)

    @cached_property
    def validator(self) -> Validator | None:
        """Made when it is first asked for: fitting the Markov chain reads up to 50 Mbp."""
        if self.held_out is None:
            return None
        chain = fit_markov(self.maker.genomes, self.mix.held_out)
        return Validator(self.maker, self.held_out, chain, self.config.validation.batch_size)


def pretrain(
    config: PretrainConfig, run: Path, *, resume: bool = False, console: Console | None = None
) -> Outcome:
    """Trains into the folder `run`. With `resume` from its newest checkpoint, or from step 0 if it has none.

    Raises ConfigError (settings that do not fit, or a folder that holds another run), NonFiniteLoss, OSError.
    """
    processes = Processes.from_environment()
    console = console or Console(stderr=True, quiet=not processes.is_main)
    device = pick_device(config.run.device, processes.local_rank)
    if device.type == "cpu":
        return_freed_tensors()
    with processes.joined(device, config.run.timeout_s):
        # What is on disk is looked at by one process, so that all go on from the same step.
        start, taken = processes.first(_look(run) if processes.is_main else None)
        if taken and not resume:
            raise ConfigError(
                f"{run} holds a run already: continue it with --resume, or choose another folder"
            )
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
                _draw(job, run)
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
            for log in logs:
                log.write(line)
            progress.update(done, _figures(line))
            last = done == config.run.steps or report.stop
            if last or (settings.every_steps and done % settings.every_steps == 0):
                writer.save(done, job.model, job.loop.optimizer, record)
            if writer.broken:
                stop.signal_name = (
                    stop.signal_name or "a checkpoint that failed"
                )  # for all, after the next step
            if not last and config.validation.every_steps and done % config.validation.every_steps == 0:
                _validate(job, run, done, console)
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
    before = start.config()
    then = from_tree(PretrainConfig, before["settings"], str(start.path / checkpoint.CONFIG))
    changed = differences(then.to_dict(), job.config.to_dict())
    refused = {key: pair for key, pair in changed.items() if not key.startswith(FREE_ON_RESUME)}
    genomes = [
        [{key: genome[key] for key in GENOME_KEYS} for genome in record["genomes"]]
        for record in (before, json.loads(json.dumps(job.record())))
    ]
    if genomes[0] != genomes[1]:
        refused["data.genomes"] = (genomes[0], genomes[1])
    if refused:
        told = "; ".join(f"{key} was {old!r}, is {new!r}" for key, (old, new) in refused.items())
        raise ConfigError(f"{run} cannot be resumed with other settings: {told}")
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


def _draw(job: PretrainingRun, run: Path) -> None:
    levels = {"uniform": UNIFORM}
    if job.validator is not None:
        levels["order-5 Markov chain, held out"] = job.validator.markov_nats_per_bp
    draw_losses(run, "nats_per_bp", "training loss, nats per base pair", levels)


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto` is CUDA where there is one; each process has its own. Raises ConfigError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"run.device = {name!r}: wanted auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device = 'cuda': torch finds no CUDA device here")
    return torch.device("cuda", local_rank) if name == "cuda" else torch.device("cpu")


def versions() -> dict[str, str]:
    """Of Python and of what decides the numbers. A clone that is run without being installed has no version."""
    found = {"python": platform.python_version()}
    for name in ("dnagpt-fast", "torch", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ in two nested dicts of the same keys."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in old:
        if isinstance(old[key], dict):
            found |= differences(old[key], new[key], f"{prefix}{key}.")
        elif old[key] != new[key]:
            found[prefix + key] = (old[key], new[key])
    return found


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all, so that a reader never sees half a file."""
    with whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def load_run(run: Path) -> tuple[DNAGPT, Vocabulary, dict[str, Any]]:
    """The model (eval mode, CPU), vocabulary and record of a run's newest checkpoint, or of a checkpoint folder.

    Raises CheckpointError where there is none.
    """
    found = checkpoint.open_checkpoint(run)
    record = found.config()
    model = DNAGPT.from_config(ModelConfig.from_dict(record["model"]))
    model.load_state_dict(found.weights())
    return model.eval(), Vocabulary(**record["vocabulary"]), record
