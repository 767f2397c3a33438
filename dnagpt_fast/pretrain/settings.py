"""What a pre-training run is: settings from a TOML file and `section.key=value` overrides, checked up front.

Every unknown key and every value of a wrong type is a ConfigError that names it and what was wanted.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dnagpt_fast.training.settings import (
    ConfigError,
    ModelSettings,
    OptimizerSettings,
    StartSettings,
    VocabularySettings,
    check_least,
    from_tree,
    settings_tree,
)
from dnagpt_fast.weights.packaged import is_packaged


@dataclass(frozen=True)
class PlaceSettings:
    """Places of one genome whose windows are drawn more or less often than others, or whose next tokens count more.

    path           BED, GTF or GFF3, plain or gzip
    feature        of GTF and GFF3: only lines of this type, such as exon; empty: every line
    weight         of a window whose middle base is in one of the intervals; it is 1 everywhere else
    weight_column  of BED: the column, counted from 1, that holds each interval's own weight; 0: `weight`
    loss_weight    of a next token in one of the intervals, the mean of its bases where it is in part; 1 everywhere else
    """

    path: str = ""
    feature: str = ""
    weight: float = 1.0
    weight_column: int = 0
    loss_weight: float = 1.0


@dataclass(frozen=True)
class GenomeSettings:
    """One genome of the mix.

    path                .2bit or FASTA
    species             a name of vocab.SPECIES or a reserved token without brackets
    weight              share of the samples, relative to the other genomes'
    held_out            ranges never touched by a training window: `contig` or `contig:start_bp-end_bp` (0-based,
                        half-open)
    places              intervals whose windows are drawn more or less often, or whose next tokens count more or less
    soft_masked_weight  of a window whose middle base is soft-masked; 0.1 draws repeats ten times less often
    """

    path: str = ""
    species: str = "human"
    weight: float = 1.0
    held_out: tuple[str, ...] = ()
    places: tuple[PlaceSettings, ...] = ()
    soft_masked_weight: float = 1.0


@dataclass(frozen=True)
class DataSettings:
    """The windows.

    genomes                   the mix
    genome_table              a tab-separated file with more of them: path, species, weight, held_out (comma-separated)
    n_kmers                   k-mers of a window; 0: as many as the model's max_len holds
    held_out_tail             genomes that name no held-out range keep back this share of the end of each contig
    reversed_share            windows read backwards, the order task's second class
    reverse_complement_share  windows taken from the reverse strand. 0.5, because a DNA molecule has two strands and the
                              file stores one of them by convention: both are equally real, and genes lie on both
    max_n_share               unknown bases a window may hold
    seed                      of the windows; sample i depends on (seed, i) alone
    """

    genomes: tuple[GenomeSettings, ...] = ()
    genome_table: str = ""
    n_kmers: int = 0
    held_out_tail: float = 0.05
    reversed_share: float = 0.5
    reverse_complement_share: float = 0.5
    max_n_share: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class TemplateSettings:
    """`<species>` k-mers gc_prompt order_prompt, the answer being the last target. Prompts are reserved tokens.

    The last token of gc_prompt is where GC is regressed, the last of order_prompt where the order is predicted.
    order_answers: `as it stands` and `reversed`; empty: `N` and `A`, or `<+>` and `<->` where the vocabulary has no
    one-letter k-mers.
    """

    gc_prompt: tuple[str, ...] = ("=", "M")
    order_prompt: tuple[str, ...] = ("=", "B")
    order_answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class LossSettings:
    """order_weight, gc_weight: of the two other tasks, beside the next tokens' 1.

    reversed_next_token  whether the next tokens of reversed windows count; their order answer and GC always do
    vocabulary           full, or occurring: the same softmax with one row for all tokens that are never a target
                         (ops/combined_loss/occurring.py); next tokens with an N are then left out
    z_loss               weight of the squared log of the softmax's sum
    base_level           share of the base-level loss in the loss of the next tokens (ops/combined_loss/base_level.py):
                         (1 - share) of the cross-entropy and share of the loss base by base
    base_level_from_step the first step with that share; before it the cross-entropy alone
    soft_masked_weight   of a next token whose bases are all soft-masked, less of one that is masked in part; 1: all
                         next tokens count the same. To draw such windows less often: data.genomes, soft_masked_weight
    """

    order_weight: float = 1.0
    gc_weight: float = 0.01
    reversed_next_token: bool = True
    vocabulary: str = "full"
    z_loss: float = 0.0
    base_level: float = 0.0
    base_level_from_step: int = 0
    soft_masked_weight: float = 1.0


@dataclass(frozen=True)
class ScheduleSettings:
    """Linear warm-up over warmup_steps, then a cosine down to min_lr_share of the rate at the last step.

    kind         cosine, or wsd (warm-up, stable, decay): the full rate until the last decay_steps of the run, which go
                 down to min_lr_share as 1 - sqrt(progress). A wsd run may be given another length while it is stable
    decay_steps  of wsd
    restarts     steps at which the schedule begins anew, up to the next one; a finished run that is made longer
                 (`--resume --set run.steps=MORE`) writes its old end here
    """

    warmup_steps: int = 10_000
    min_lr_share: float = 0.0
    kind: str = "cosine"
    decay_steps: int = 0
    restarts: tuple[int, ...] = ()


@dataclass(frozen=True)
class RunSettings:
    """steps: optimizer steps. batch_size: samples of one step, over all processes. micro_batch_size: samples of one
    forward pass of one process; 0: all that this process has in a step. precision: fp32, or bf16 by autocast.
    device: auto, cpu or cuda. seed: of the initial weights. timeout_s: how long a process of several may be silent.
    tensorboard: event files beside metrics.jsonl."""

    steps: int = 100_000
    batch_size: int = 40
    micro_batch_size: int = 0
    precision: str = "fp32"
    device: str = "auto"
    timeout_s: float = 600.0
    seed: int = 0
    tensorboard: bool = False


@dataclass(frozen=True)
class ParallelSettings:
    """How the work is cut up; none of it changes what is computed but for rounding.

    sharding                  of several processes: ddp, a replica of the model each, for models that fit one device;
                              fsdp, a share of every weight, gradient and moment each (gradients only once a step's
                              micro-batches are summed). One process has all of it anyway
    activation_checkpointing  a block keeps its input only and is computed again in the backward pass: less memory, a
                              third more work
    compile_blocks            torch.compile of each block: a longer first step; on the CPU it needs a C++ compiler
    """

    sharding: str = "ddp"
    activation_checkpointing: bool = False
    compile_blocks: bool = False


@dataclass(frozen=True)
class CheckpointSettings:
    """every_steps 0: at the end only. keep: the newest so many stay."""

    every_steps: int = 1000
    keep: int = 3


@dataclass(frozen=True)
class ValidationSettings:
    """every_steps 0: at the end only. max_windows: held-out windows evaluated, evenly thinned out of all."""

    every_steps: int = 0
    max_windows: int = 1000
    batch_size: int = 32


LEAST = {
    "run.steps": 1, "run.batch_size": 1, "run.micro_batch_size": 0, "data.n_kmers": 0,
    "schedule.warmup_steps": 0, "checkpoint.every_steps": 0, "checkpoint.keep": 1,
    "validation.every_steps": 0, "validation.max_windows": 1, "validation.batch_size": 1, "optimizer.lr": 0,
    "optimizer.weight_decay": 0, "optimizer.clip_norm": 0, "schedule.decay_steps": 0, "loss.z_loss": 0,
    "loss.soft_masked_weight": 0,
    "loss.base_level": 0, "loss.base_level_from_step": 0,
}  # fmt: skip
ONE_OF = {
    "run.precision": ("fp32", "bf16"), "parallel.sharding": ("ddp", "fsdp"), "optimizer.kind": ("adamw", "muon"),
    "schedule.kind": ("cosine", "wsd"), "loss.vocabulary": ("full", "occurring"),
}  # fmt: skip


@dataclass(frozen=True)
class PretrainConfig:
    model: ModelSettings = field(default_factory=ModelSettings)
    vocabulary: VocabularySettings = field(default_factory=VocabularySettings)
    data: DataSettings = field(default_factory=DataSettings)
    template: TemplateSettings = field(default_factory=TemplateSettings)
    start: StartSettings = field(default_factory=StartSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    run: RunSettings = field(default_factory=RunSettings)
    parallel: ParallelSettings = field(default_factory=ParallelSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)

    def __post_init__(self) -> None:
        check_least(self, LEAST)
        if not 0 <= self.data.held_out_tail < 1:
            raise ConfigError(f"data.held_out_tail = {self.data.held_out_tail}: wanted 0 <= share < 1")
        if self.loss.base_level > 1:
            raise ConfigError(f"loss.base_level = {self.loss.base_level}: wanted a share, 0..1")
        if self.loss.base_level_from_step and not self.loss.base_level:
            raise ConfigError(
                f"loss.base_level_from_step = {self.loss.base_level_from_step} with loss.base_level = 0: "
                "wanted a share to switch to"
            )
        for name, allowed in ONE_OF.items():
            section, key = name.split(".")
            value = getattr(getattr(self, section), key)
            if value not in allowed:
                raise ConfigError(f"{name} = {value!r}: wanted {' or '.join(allowed)}")
        if self.optimizer.kind == "muon" and self.parallel.sharding == "fsdp":
            raise ConfigError(
                "optimizer.kind = 'muon' with parallel.sharding = 'fsdp': a step needs whole matrices, fsdp keeps "
                "shares; wanted parallel.sharding = 'ddp', or optimizer.kind = 'adamw'"
            )
        if not (self.template.gc_prompt and self.template.order_prompt):
            raise ConfigError("template.gc_prompt and template.order_prompt need at least one token each")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def load_config(
    path: str | Path | None,
    overrides: Sequence[str] = (),
    genomes: Sequence[str] = (),
    *,
    moved: bool = False,
) -> PretrainConfig:
    """The settings of a TOML file (None: the defaults) with `section.key=value` overrides on top, values as in TOML.

    path may also be the config.json of a run. genomes: `SPECIES=FILE` texts, added to data.genomes; with `moved` they
    say where the genomes of that species lie now, in their order.

    Relative paths count from the file's folder, in overrides from the current one; they come back absolute.
    Raises ConfigError, FileNotFoundError.
    """
    tree = settings_tree(PretrainConfig, path, overrides, _absolute_paths)
    listed = tree.setdefault("data", {}).setdefault("genomes", []) if genomes else []
    known = list(listed)
    for text in genomes:
        species, equals, file = text.partition("=")
        if not (species and equals and file):
            raise ConfigError(f"--genome {text}: wanted SPECIES=FILE")
        if not moved:
            listed.append({"path": file, "species": species})
            continue
        genome = next((each for each in known if each["species"] == species), None)
        if genome is None:
            names = ", ".join(each["species"] for each in listed)
            raise ConfigError(
                f"--genome {text}: the run that is resumed has no {species!r} (more) in data.genomes, which are {names}"
            )
        known.remove(genome)
        genome["path"] = file
    _absolute_paths(tree, Path.cwd())
    return from_tree(PretrainConfig, tree, str(path) if path is not None else "")


def _absolute_paths(tree: dict[str, Any], folder: Path) -> None:
    """Joins the relative paths of genomes, their table, their places and the start to `folder`. What is not a path is
    left to the type check; the name of a packaged model stays."""
    start = tree.get("start")
    if isinstance(start, dict) and isinstance(path := start.get("path"), str):
        start["path"] = path if not path or is_packaged(path) else str((folder / path).resolve())
    data = tree.get("data")
    if not isinstance(data, dict):
        return
    genomes = data.get("genomes")
    listed = genomes if isinstance(genomes, list) else []
    places = [place for genome in listed if isinstance(genome, dict) for place in genome.get("places", ())]
    for entry in [data, *listed, *places]:
        for key in ("path", "genome_table"):
            if isinstance(entry, dict) and isinstance(entry.get(key), str) and entry[key]:
                entry[key] = str((folder / entry[key]).resolve())
