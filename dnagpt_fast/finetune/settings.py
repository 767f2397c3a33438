"""Settings of a fine-tuning run, read from a TOML file and overrides and checked before any work.

The defaults of optimizer, schedule and early stopping are those of the published models.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dnagpt_fast.finetune.data.examples import ON_LONG, ON_LOWER_CASE, ON_N
from dnagpt_fast.finetune.data.settings import LabelledDataSettings, SplitSettings
from dnagpt_fast.finetune.data.splits import KINDS
from dnagpt_fast.training.settings import (
    AdamWSettings,
    ConfigError,
    ModelSettings,
    StartSettings,
    VocabularySettings,
    check_least,
    from_tree,
    settings_tree,
)
from dnagpt_fast.weights.packaged import is_packaged

TASKS = ("classification", "regression", "generation", "tagging")
TRANSFORMS = ("none", "log10")
PATH_KEYS = (("data", "path"), ("data", "genome"), ("start", "path"))


@dataclass(frozen=True)
class FinetuneTaskSettings:
    """The task.

    kind           classification, regression, generation or tagging
    species        the first token: human, mouse, ... or a reserved token without brackets
    classes        the labels, in the order of their answers; empty: those of the training rows, sorted. Tagging: the
                   kinds of features, of which the first has precedence where they overlap; the tags are O, B-kind,
                   I-kind, ...
    positive       with two classes: the class of f1, auroc and auprc, whose answer is `N`; empty: the last
                   class
    class_weights  one for each class (tagging: for each tag); empty: all 1
    balanced       class weights inverse to the class sizes of the training rows, in place of class_weights
    whole_vocabulary  train the answer against all tokens, as the published models were; otherwise against the
                      answers
    target_transform  regression: "none" or "log10" (of x + 0.1, as published); targets are standardised in
                      both cases
    """

    kind: str = "classification"
    species: str = "human"
    classes: tuple[str, ...] = ()
    positive: str = ""
    class_weights: tuple[float, ...] = ()
    balanced: bool = False
    whole_vocabulary: bool = False
    target_transform: str = "none"


@dataclass(frozen=True)
class TuningSettings:
    """What is trained. The LoRA settings are those of peft; the heads of the task are always trained in full.

    method             full or lora
    lora_rank          width of the two factors of a low-rank addition
    lora_alpha         the addition is multiplied by lora_alpha / lora_rank
    lora_dropout       share of the addition's inputs that are dropped in training
    lora_targets       the layers that get an addition
    freeze_embeddings  token and position embeddings are not trained
    freeze_blocks      number of first blocks that are not trained
    """

    method: str = "full"
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ("c_attn", "c_proj", "c_fc")
    freeze_embeddings: bool = False
    freeze_blocks: int = 0


@dataclass(frozen=True)
class FinetuneOptimizerSettings(AdamWSettings):
    """AdamW with the published defaults of fine-tuning."""

    lr: float = 3e-5
    weight_decay: float = 0.1


@dataclass(frozen=True)
class FinetuneRunSettings:
    """The run.

    epochs                 the most
    warmup_epochs          of a rising learning rate, then it falls by a cosine
    min_lr_share           share of optimizer.lr at the end
    patience               the run stops after this many epochs without a lower validation loss; 0: never
    batch_size             rows of one step, over all processes
    micro_batch_size       rows of one forward pass of one process; 0: all rows of this process in a step
    evaluation_batch_size  rows at once where nothing is trained
    precision              fp32; bf16 by autocast; auto: bf16 on CUDA, fp32 on the CPU, and on resuming that of the run
    device                 auto, cpu or cuda
    seed                   of the new weights and the order of the rows
    runs                   number of runs, with seeds seed, seed + 1, ...; the split is the same
    keep                   number of newest checkpoints that stay
    timeout_s              seconds: the longest wait for another process
    """

    epochs: int = 10
    warmup_epochs: float = 3.0
    min_lr_share: float = 0.0
    patience: int = 3
    batch_size: int = 8
    micro_batch_size: int = 0
    evaluation_batch_size: int = 32
    precision: str = "auto"
    device: str = "auto"
    seed: int = 0
    runs: int = 1
    keep: int = 2
    timeout_s: float = 600.0


@dataclass(frozen=True)
class SamplingSettings:
    """Sequences that are generated after the training of a generation task.

    count        how many; 0: as many as the test set has
    temperature  above 1 more random, below 1 less
    top_k        draw from the k most likely tokens; 0: off
    top_p        draw from the most likely tokens up to this share; 0: off
    seed         of what is drawn
    """

    count: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0
    seed: int = 0


LEAST = {
    "run.epochs": 1, "run.warmup_epochs": 0, "run.patience": 0, "run.batch_size": 1,
    "run.micro_batch_size": 0, "run.evaluation_batch_size": 1, "run.runs": 1, "run.keep": 1,
    "tuning.lora_rank": 1, "tuning.freeze_blocks": 0, "sampling.count": 0, "sampling.temperature": 1e-6,
    "optimizer.lr": 0, "optimizer.clip_norm": 0,
}  # fmt: skip


@dataclass(frozen=True)
class FinetuneConfig:
    start: StartSettings = field(default_factory=StartSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    vocabulary: VocabularySettings = field(default_factory=VocabularySettings)
    task: FinetuneTaskSettings = field(default_factory=FinetuneTaskSettings)
    data: LabelledDataSettings = field(default_factory=LabelledDataSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    tuning: TuningSettings = field(default_factory=TuningSettings)
    optimizer: FinetuneOptimizerSettings = field(default_factory=FinetuneOptimizerSettings)
    run: FinetuneRunSettings = field(default_factory=FinetuneRunSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)

    def __post_init__(self) -> None:
        check_least(self, LEAST)
        for name, text, known in (
            ("task.kind", self.task.kind, TASKS),
            ("task.target_transform", self.task.target_transform, TRANSFORMS),
            ("data.on_lower_case", self.data.on_lower_case, ON_LOWER_CASE),
            ("data.on_n", self.data.on_n, ON_N),
            ("data.on_long", self.data.on_long, ON_LONG),
            ("split.kind", self.split.kind, KINDS),
            ("tuning.method", self.tuning.method, ("full", "lora")),
            ("run.precision", self.run.precision, ("auto", "fp32", "bf16")),
        ):
            if text not in known:
                raise ConfigError(f"{name} = {text!r}: wanted one of {', '.join(known)}")
        if self.task.kind == "tagging" and self.task.positive:
            raise ConfigError(
                f"task.positive = {self.task.positive!r}: tagging has no positive class; leave it out"
            )
        if self.task.balanced and self.task.class_weights:
            raise ConfigError("task.balanced and task.class_weights: wanted one of them")
        if self.run.micro_batch_size and self.run.batch_size % self.run.micro_batch_size:
            raise ConfigError(
                f"run.micro_batch_size = {self.run.micro_batch_size} does not divide run.batch_size = "
                f"{self.run.batch_size}"
            )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def load_finetune_config(path: str | Path | None, overrides: Sequence[str] = ()) -> FinetuneConfig:
    """Settings of a fine-tuning run, read as in pretrain.settings.load_config. Raises ConfigError,
    FileNotFoundError."""
    tree = settings_tree(FinetuneConfig, path, overrides, _absolute_paths)
    config = from_tree(FinetuneConfig, tree, str(path) if path is not None else "")
    if not config.data.path:
        place = "" if path is None else f"{path}: "
        raise ConfigError(f"{place}data.path is empty: give the file of labelled sequences")
    return config


def _absolute_paths(tree: dict[str, Any], folder: Path) -> None:
    for section, key in PATH_KEYS:
        values = tree.get(section)
        if isinstance(values, dict) and isinstance(values.get(key), str) and values[key]:
            if section == "start" and is_packaged(values[key]):
                continue
            values[key] = str((folder / values[key]).absolute())
