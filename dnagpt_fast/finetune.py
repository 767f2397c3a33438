"""Fine-tuning: a start, labelled sequences and settings in, a run folder out. The loop is that of pre-training.

RUN/config.json        settings, model, template, classes, standardisation, hashes, versions
    metrics.jsonl      one object a step; those that end an epoch hold validation_loss
    checkpoints/       see training/checkpoint.py; what --resume goes on from
    model.safetensors  the weights with the lowest validation loss, by their official names
    results.json, predictions.tsv, test.png (haplotypes.png, made.haps), README.md   the report on the test rows
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from dnagpt_fast import ops
from dnagpt_fast.config import ModelConfig, preset
from dnagpt_fast.convert import load_model
from dnagpt_fast.finetuning.adaptation import Adaptation
from dnagpt_fast.finetuning.examples import fit_length
from dnagpt_fast.finetuning.model_card import write_model_card
from dnagpt_fast.finetuning.prepare import Language, Prepared, encode, prepare
from dnagpt_fast.finetuning.report import (
    Predictions,
    mean_loss,
    predict_rows,
    report_haplotypes,
    sample_texts,
    score_predictions,
    write_predictions,
)
from dnagpt_fast.finetuning.settings import ConfigError, FinetuneConfig, LabelledDataSettings
from dnagpt_fast.finetuning.sources import read_examples
from dnagpt_fast.finetuning.tables import delimiter, write_rows
from dnagpt_fast.finetuning.task_data import TaskBatch
from dnagpt_fast.finetuning.task_loss import TaskLosses
from dnagpt_fast.model import DNAGPT
from dnagpt_fast.output_files import whole
from dnagpt_fast.pretrain import raise_if_refused, refused_changes, write_json
from dnagpt_fast.pretraining_run import pick_device, versions
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.checkpoint_writer import CheckpointWriter
from dnagpt_fast.training.loop import Loop, StopRequest
from dnagpt_fast.training.metrics import MetricsLog, read_metrics
from dnagpt_fast.training.optimizer import build_optimizer, warmup_cosine
from dnagpt_fast.training.parallel import distribute
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.progress import TrainingProgress
from dnagpt_fast.training_config import from_tree
from dnagpt_fast.vocab import Vocabulary

FORMAT = 1
WEIGHTS = "model.safetensors"
# What a resumed run may change: how it runs and how it is judged, not what it computes.
FREE_ON_RESUME = ("run.device", "run.timeout_s", "run.keep", "run.evaluation_batch_size", "sampling")


@dataclass(frozen=True)
class Outcome:
    """steps: optimizer steps done. stopped_by: the signal that ended the run early, or None. results: results.json."""

    steps: int
    stopped_by: str | None
    results: dict[str, Any] | None


def start_model(config: FinetuneConfig, seed: int) -> tuple[DNAGPT, Vocabulary]:
    """The model that tuning starts from: of a run folder (of pre-training or of fine-tuning), of an official checkpoint
    file, of a Hugging Face folder, or random with this seed. Raises ConfigError, CheckpointError, FileNotFoundError."""
    torch.manual_seed(seed)
    if not config.start.path:
        vocabulary = Vocabulary(config.vocabulary.k, config.vocabulary.dynamic)
        names = ("max_len", "num_layers", "num_heads", "embedding_dim")
        given = {name: getattr(config.model, name) for name in names if getattr(config.model, name)}
        try:
            shape = dataclasses.replace(
                preset(config.model.name, len(vocabulary)), bias=config.model.bias, **given
            )
        except ValueError as error:
            raise ConfigError(f"model: {error}") from error
        return DNAGPT.from_config(shape), vocabulary
    model, tokenizer = load_model(config.start.path, num_heads=config.start.num_heads or None)
    return model, tokenizer.vocabulary


def load_finetuned(run: Path) -> tuple[DNAGPT, Language, dict[str, Any]]:
    """The best model (eval mode, CPU), its language and the record of a fine-tuning run. Raises ConfigError."""
    path = run / "config.json"
    if (run / "run-0").is_dir():
        raise ConfigError(f"{run} holds several runs: choose one of them, such as {run / 'run-0'}")
    if not path.is_file() or not (run / WEIGHTS).is_file():
        raise ConfigError(
            f"{run} holds no finished epoch of a fine-tuning run: no config.json or no {WEIGHTS}"
        )
    record = json.loads(path.read_text())
    if record.get("kind") != "finetune":
        raise ConfigError(f"{run} is a run of {record.get('kind', 'something else')}, not of fine-tuning")
    model = DNAGPT.from_config(ModelConfig.from_dict(record["model"]))
    model.load_state_dict(load_file(run / WEIGHTS))
    vocabulary = Vocabulary(**record["vocabulary"])
    return model.eval(), Language.from_dict(record["language"], vocabulary), record


class FinetuneRun:
    """Everything of one run, built and checked before the first step."""

    def __init__(
        self,
        config: FinetuneConfig,
        seed: int,
        prepared: Prepared | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.config, self.seed = config, seed
        self.processes = processes or Processes()
        self.device = pick_device(config.run.device, self.processes.local_rank)
        self.model, self.vocabulary = start_model(config, seed)
        self.model.to(self.device).train()
        self.start_sha256 = _state_hash(self.model) if config.start.path else ""
        self.prepared = prepared or prepare(config, self.vocabulary, self.model.max_len)
        language = self.prepared.language
        self.train, self.validation = self.prepared.sets["train"], self.prepared.sets["validation"]
        kind = config.task.kind
        self.adaptation = Adaptation(self.model, kind, config.tuning, numbers=language.template.numbers)
        self.losses = TaskLosses(
            self.model, kind, language.answers, whole_vocabulary=config.task.whole_vocabulary
        ).to(self.device)
        self.steps_per_epoch = -(-len(self.train) // config.run.batch_size)
        self.steps = config.run.epochs * self.steps_per_epoch
        settings = config.optimizer
        self.optimizer = build_optimizer(
            self.model,
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        warmup = min(round(config.run.warmup_epochs * self.steps_per_epoch), self.steps)
        mine = self.processes.share(config.run.batch_size, "run.batch_size")
        self.part_size = config.run.micro_batch_size or len(mine)
        if len(mine) % self.part_size:
            raise ConfigError(
                f"run.micro_batch_size = {self.part_size} does not divide the {len(mine)} rows of a process and step"
            )
        self.first_row = mine.start
        self.loop = Loop(
            losses_of=distribute(self.losses, self.model.blocks, "ddp", self.processes, self.device),
            optimizer=self.optimizer,
            batch_at=self.batch_at,
            lr_at=warmup_cosine(settings.lr, warmup, self.steps, config.run.min_lr_share),
            describe=self.train.describe,
            parts=len(mine) // self.part_size,
            clip_norm=settings.clip_norm,
            bf16=config.run.precision == "bf16",
            device=self.device,
            processes=self.processes,
        )

    def batch_at(self, step: int, part: int) -> TaskBatch:
        """The micro-batch `part` of this process in `step`, by arithmetic on the samples' indices."""
        place = self.first_row + part * self.part_size
        if self.config.tuning.method == "lora" and self.config.tuning.lora_dropout:
            # dropout draws from torch's generator, which a resumed run does not inherit
            torch.manual_seed(hash((self.seed, step, place // self.part_size)) & 0x7FFFFFFF)
        first = step * self.config.run.batch_size + place
        return self.train.batch(self.train.training_rows(first, self.part_size, self.seed)).to(self.device)

    def validation_loss(self) -> float:
        self.model.eval()
        size = self.config.run.evaluation_batch_size
        loss = mean_loss(self.losses, self.validation, size, self.device, self.processes)
        self.model.train()
        return loss

    def record(self) -> dict[str, Any]:
        """What config.json holds, here and in every checkpoint."""
        return {
            "format": FORMAT,
            "kind": "finetune",
            "model": self.model.config.to_dict(),
            "vocabulary": dataclasses.asdict(self.vocabulary),
            "language": self.prepared.language.to_dict(),
            "settings": self.config.to_dict(),
            "seed": self.seed,
            "start_sha256": self.start_sha256,
            "trained_parameters": self.adaptation.trained,
            "hashes": self.prepared.hashes,
            "counts": self.prepared.counts,
            "report": ops.report(),
            "versions": versions(),
        }


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
                        _save_weights(run / WEIGHTS, job.adaptation.state())
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


def predict(
    run: Path, data: LabelledDataSettings | None, output: Path, *, device: str = "auto", batch_size: int = 32
) -> tuple[Predictions, Language]:
    """Answers of a fine-tuned model for new sequences, written as a table. `data`: its file and columns.

    Labels are not read. Raises ConfigError, LabelError, FileNotFoundError, ValueError for a table of another name.
    """
    delimiter(output)
    model, language, record = load_finetuned(run)
    if language.template.kind == "generation":
        raise ConfigError(
            f"{run} was tuned for generation and answers no question about a sequence: `dnagpt-fast generate {run}`, "
            f"or for haplotypes `dnagpt-fast finetune --resume --out {run} --set sampling.count=...`"
        )
    settings = from_tree(FinetuneConfig, record["settings"]).data
    if data is None:
        data = settings
    if len(data.number_columns) != language.template.numbers:
        raise ConfigError(
            f"data.number_columns = {data.number_columns}: the model was tuned with {settings.number_columns}"
        )
    examples = read_examples(data, labelled=False)
    examples = fit_length(examples, language.template.longest_bp(model.max_len), data.on_long)
    where = pick_device(device)
    losses = TaskLosses(model.to(where), language.template.kind, language.answers).to(where)
    rows = encode(examples, language, labelled=False)
    found = predict_rows(losses, rows, language, batch_size, where, labelled=False)
    write_predictions(output, found, language)
    return found, language


def _save_weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    with whole(path) as temporary:
        save_file(state, temporary)


def _state_hash(model: DNAGPT) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
