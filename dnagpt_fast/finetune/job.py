"""A fine-tuning run as one object: model, rows, losses and training loop."""

import dataclasses
from typing import Any

import torch

from dnagpt_fast import ops
from dnagpt_fast.finetune.adaptation import Adaptation
from dnagpt_fast.finetune.prepare import Prepared, prepare
from dnagpt_fast.finetune.report import (
    mean_loss,
)
from dnagpt_fast.finetune.settings import ConfigError, FinetuneConfig
from dnagpt_fast.finetune.task_data import TaskBatch
from dnagpt_fast.finetune.task_loss import TaskLosses
from dnagpt_fast.training.checkpoint import Checkpoint
from dnagpt_fast.training.devices import pick_device, with_precision
from dnagpt_fast.training.loop import Loop
from dnagpt_fast.training.optimizer import build_optimizer, warmup_cosine
from dnagpt_fast.training.parallel import distribute
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.run_folder import FORMAT, versions
from dnagpt_fast.weights.start import resumed_model, start_model, state_hash


class FinetuneRun:
    """All parts of one run, built and checked before the first step."""

    def __init__(
        self,
        config: FinetuneConfig,
        seed: int,
        prepared: Prepared | None = None,
        processes: Processes | None = None,
        resumed: Checkpoint | None = None,
    ) -> None:
        """resumed: the checkpoint whose weights the caller will load. The file of config.start is then not
        read, and need not exist."""
        self.seed, self.processes = seed, processes or Processes()
        self.device = pick_device(config.run.device, self.processes.local_rank)
        self.config = config = with_precision(config, self.device, resumed)
        if resumed is None:
            self.model, self.vocabulary = start_model(config.start, config.model, config.vocabulary, seed)
        else:
            torch.manual_seed(seed)
            self.model, self.vocabulary = resumed_model(resumed)
        self.model.to(self.device).train()
        self.start_sha256 = str(resumed.config().get("start_sha256", "")) if resumed else ""
        if resumed is None and config.start.path:
            self.start_sha256 = state_hash(self.model)
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
        """The micro-batch `part` of this process in `step`; (seed, step, part) decide its rows and its
        dropout."""
        place = self.first_row + part * self.part_size
        if self.config.tuning.method == "lora" and self.config.tuning.lora_dropout:
            # dropout draws from torch's generator, whose state a resumed run does not have
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
        """The content of config.json, in the run folder and in every checkpoint."""
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
