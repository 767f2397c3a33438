"""Settings of a pre-training run, read from a TOML file and `section.key=value` overrides and checked before
any work.

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
    """Intervals of one genome whose windows are drawn more or less often, or whose next tokens have another
    weight.

    path           BED, GTF or GFF3, plain or gzip
    feature        GTF and GFF3: only lines of this type, such as exon; empty: all lines
    weight         of a window whose middle base is in one of the intervals; other windows have weight 1
    weight_column  BED: the column, counted from 1, with the weight of each interval; 0: use `weight`
    loss_weight    of a next token in one of the intervals (the mean over its bases); other tokens have weight
                   1
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
    held_out            ranges that no training window overlaps: `contig` or `contig:start_bp-end_bp`
                        (0-based, half-open)
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
    genome_table              a tab-separated file with more genomes: path, species, weight, held_out
                              (comma-separated)
    n_kmers                   k-mers of a window; 0: as many as fit into the model's max_len
    held_out_tail             in genomes without held-out ranges this share of the end of each contig is held
                              out
    reversed_share            share of reversed windows, the second class of the order task
    reverse_complement_share  share of windows from the reverse strand. 0.5, because a DNA molecule has two
                              equal strands with genes on both; the file stores one of them by convention
    max_n_share               largest share of unknown bases in a window
    seed                      of the windows; sample i depends only on (seed, i)
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
    """`<species>` k-mers gc_prompt order_prompt; the order answer is the last target. Prompts are reserved tokens.

    gc_prompt      GC is predicted at its last token
    order_prompt   the order is predicted at its last token
    order_answers  the tokens for not reversed and reversed; empty: `N` and `A`, or `<+>` and `<->` if the vocabulary
                   has no one-letter k-mers
    """

    gc_prompt: tuple[str, ...] = ("=", "M")
    order_prompt: tuple[str, ...] = ("=", "B")
    order_answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class LossSettings:
    """The sum of the losses of the three tasks; the next tokens have weight 1.

    order_weight         weight of the order task
    gc_weight            weight of the GC task
    reversed_next_token  whether the next tokens of reversed windows are in the loss; their order answer and
                         GC always are
    vocabulary           full, or occurring: the same softmax with one row for all tokens that are never a target
                         (ops/combined_loss/occurring.py); next tokens with an N are then left out
    z_loss               weight of the squared log of the softmax's sum
    base_level           share of the base-level loss in the loss of the next tokens (ops/combined_loss/base_level.py):
                         (1 - share) of the cross-entropy plus share of the loss per base
    base_level_from_step  the first step with this share; earlier steps use only the cross-entropy
    soft_masked_weight   weight of a next token whose bases are all soft-masked; between this and 1 if some
                         are; 1: all next tokens count the same. To draw such windows less often:
                         data.genomes, soft_masked_weight
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
    """The learning rate: a linear warm-up, then a decrease.

    warmup_steps  of a rising rate
    min_lr_share  share of optimizer.lr at the last step
    kind          cosine, or wsd (warm-up, stable, decay): the full rate until the last decay_steps of the run,
                  then a decrease to min_lr_share by 1 - sqrt(progress). While a wsd run is stable, its length
                  can be changed
    decay_steps   of wsd
    restarts      steps at which the schedule starts again, each up to the next one; a finished run that is
                  made longer (`--resume --set run.steps=MORE`) gets its old end here
    """

    warmup_steps: int = 10_000
    min_lr_share: float = 0.0
    kind: str = "cosine"
    decay_steps: int = 0
    restarts: tuple[int, ...] = ()


@dataclass(frozen=True)
class RunSettings:
    """The run.

    steps             optimizer steps
    batch_size        samples of one step, over all processes
    micro_batch_size  samples of one forward pass of one process; 0: all samples of this process in a step
    precision         fp32; bf16 by autocast; auto: bf16 on CUDA, fp32 on the CPU, and on resuming that of the run
    residual          what the residual stream is kept in between the layers: fp32, or bf16 with precision bf16, which
                      takes less memory and time
    device            auto, cpu or cuda
    timeout_s         seconds: the longest wait for another process
    seed              of the initial weights
    tensorboard       whether event files are written beside metrics.jsonl
    """

    steps: int = 100_000
    batch_size: int = 40
    micro_batch_size: int = 0
    precision: str = "auto"
    residual: str = "fp32"
    device: str = "auto"
    timeout_s: float = 600.0
    seed: int = 0
    tensorboard: bool = False


@dataclass(frozen=True)
class ParallelSettings:
    """How the work is divided; the results differ only by rounding.

    sharding                  with several processes: ddp, each has a replica of the model, for models that
                              fit one device; fsdp, each has a part of every weight, gradient and moment (of
                              gradients after the micro-batches of a step are summed). No effect with one
                              process
    activation_checkpointing  a block stores only its input and is recomputed in the backward pass: less
                              memory, a third more work
    compile_blocks            torch.compile for each block: true, false or auto (on CUDA where the compiler works, in
                              runs of 1,000 steps or more whose step is no CUDA graph). A longer first step; on the CPU
                              it needs a C++ compiler
    cuda_graph                a step is recorded and launched as a whole: true, false or auto (on CUDA with one process,
                              where launching its kernels would take longer than running them: small steps)
    """

    sharding: str = "ddp"
    activation_checkpointing: bool = False
    compile_blocks: bool | str = "auto"
    cuda_graph: bool | str = "auto"


@dataclass(frozen=True)
class CheckpointSettings:
    """Checkpoints.

    every_steps  steps from one to the next; 0: only at the end
    keep         number of newest checkpoints that stay
    """

    every_steps: int = 1000
    keep: int = 3


@dataclass(frozen=True)
class ValidationSettings:
    """The held-out windows.

    every_steps  steps from one validation to the next; 0: only at the end
    max_windows  the most held-out windows to evaluate, spread evenly over all
    batch_size   windows at once
    """

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
    "parallel.cuda_graph": ("auto", True, False),
    "run.precision": ("auto", "fp32", "bf16"), "run.residual": ("fp32", "bf16"),
    "parallel.compile_blocks": ("auto", True, False),
    "parallel.sharding": ("ddp", "fsdp"), "optimizer.kind": ("adamw", "muon"),
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
                "wanted a share above 0 for the later steps"
            )
        for name, allowed in ONE_OF.items():
            section, key = name.split(".")
            value = getattr(getattr(self, section), key)
            if value not in allowed:
                wanted = " or ".join(str(one).lower() for one in allowed)
                raise ConfigError(f"{name} = {value!r}: wanted {wanted}")
        if self.optimizer.kind == "muon" and self.parallel.sharding == "fsdp":
            raise ConfigError(
                "optimizer.kind = 'muon' with parallel.sharding = 'fsdp': a step needs whole matrices, but fsdp "
                "divides them; wanted parallel.sharding = 'ddp', or optimizer.kind = 'adamw'"
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
    """The settings of a TOML file (None: the defaults), changed by `section.key=value` overrides with values
    as in TOML.

    path may also be the config.json of a run. genomes: `SPECIES=FILE` texts, added to data.genomes; with
    `moved` they are the new paths of the genomes of these species, in their order. Paths in the file are
    relative to its folder, paths in overrides to the current folder; the result has absolute paths. Raises
    ConfigError, FileNotFoundError.
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
                f"--genome {text}: the resumed run has no {species!r} in data.genomes, or not so many: it has {names}"
            )
        known.remove(genome)
        genome["path"] = file
    _absolute_paths(tree, Path.cwd())
    return from_tree(PretrainConfig, tree, str(path) if path is not None else "")


def _absolute_paths(tree: dict[str, Any], folder: Path) -> None:
    """Makes the relative paths of genomes, their table, their places and the start absolute, relative to
    `folder`. Values that are not text are left to the type check; the name of a packaged model stays."""
    start = tree.get("start")
    if isinstance(start, dict) and isinstance(path := start.get("path"), str):
        start["path"] = path if not path or is_packaged(path) else str((folder / path).absolute())
    data = tree.get("data")
    if not isinstance(data, dict):
        return
    genomes = data.get("genomes")
    listed = genomes if isinstance(genomes, list) else []
    places = [place for genome in listed if isinstance(genome, dict) for place in genome.get("places", ())]
    for entry in [data, *listed, *places]:
        for key in ("path", "genome_table"):
            if isinstance(entry, dict) and isinstance(entry.get(key), str) and entry[key]:
                entry[key] = str((folder / entry[key]).absolute())
