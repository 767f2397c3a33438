"""A pre-training run as one object: model, genomes, samples and training loop."""

import dataclasses
from functools import cached_property
from typing import Any, cast

import torch
from torch import nn

from dnagpt_fast import ops
from dnagpt_fast.batch import IGNORE_INDEX, ROW_NEXT_TOKEN, PretrainBatch, Windows
from dnagpt_fast.cuda_graph import CudaGraph
from dnagpt_fast.evaluation.chains import fit_chains
from dnagpt_fast.genome.base_weights import BaseWeights
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops.combined_loss.occurring import (
    OccurringTokens,
    equalize_rest,
    occurring_tokens,
    unequal_rest,
)
from dnagpt_fast.ops.combined_loss.op import CombinedLoss
from dnagpt_fast.planning.accelerators import peak_flops
from dnagpt_fast.planning.flops import step_flops
from dnagpt_fast.planning.step_memory import step_memory
from dnagpt_fast.pretrain.batches import BatchMaker, Template
from dnagpt_fast.pretrain.mix import GenomeMix, recorded
from dnagpt_fast.pretrain.placement import place_on
from dnagpt_fast.pretrain.schedule import rate_of
from dnagpt_fast.pretrain.settings import LossSettings, PretrainConfig
from dnagpt_fast.pretrain.validation import (
    Answers,
    Validator,
    answers_of,
    held_out_windows,
)
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.devices import compiles, pick_device, with_precision
from dnagpt_fast.training.figures import StageClock, StepCost
from dnagpt_fast.training.loop import Loop
from dnagpt_fast.training.optimizer import build_optimizer
from dnagpt_fast.training.parallel import distribute
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.run_folder import FORMAT, versions
from dnagpt_fast.training.settings import ConfigError, ModelSettings, VocabularySettings
from dnagpt_fast.vocab import Vocabulary
from dnagpt_fast.weights.start import resumed_model, start_model, state_hash

# Largest allowed difference between rows of tokens that never occur, relative to the largest value; rounding
# is far smaller.
MOST_UNEQUAL = 1e-4
# For the estimate whether a step is bound by its launches: the share of the peak that its products reach, launches of a
# block forward and backward with its part of the optimizer, and seconds of the host for one, as PyTorch needs them.
LIKELY_SHARE, LAUNCHES_A_BLOCK, SECONDS_A_LAUNCH = 0.4, 60, 10e-6


class PretrainingLosses(nn.Module):
    """batch -> the losses by name, as training/loop.py needs them."""

    def __init__(
        self,
        model: DNAGPT,
        settings: LossSettings,
        k: int,
        length_bp: int,
        reversed_answer: int,
        occurring: OccurringTokens | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.k = k
        self.base_level = 0.0  # of the current step, set together with its batch
        self.length_bp = length_bp
        self.reversed_answer = reversed_answer
        self.occurring = occurring

    def forward(self, batch: PretrainBatch) -> dict[str, torch.Tensor]:
        settings = self.settings
        if not settings.reversed_next_token:
            batch = without_reversed_next_tokens(batch, self.reversed_answer)
        parts = self.model.pretraining_loss(
            batch,
            order_weight=settings.order_weight,
            gc_weight=settings.gc_weight,
            z_loss=settings.z_loss,
            base_level=self.base_level,
            k=self.k,
            occurring=self.occurring,
        )
        cross_entropy = self._cross_entropy(batch, parts)
        # The total loss of a sample's next tokens, divided by the base pairs of its window.
        rows = batch.token_ids.shape[1] - 1
        nats_per_bp = cross_entropy * (rows / self.length_bp)
        return {
            "loss": parts.total,
            "next_token": cross_entropy,
            "order": parts.order,
            "gc": parts.gc,
            "nats_per_bp": nats_per_bp,
        }

    def _cross_entropy(self, batch: PretrainBatch, parts: CombinedLoss) -> torch.Tensor:
        """Unweighted cross-entropy per next token, in nats, without z-loss and base-level loss."""
        as_measured = not self.settings.z_loss and not self.base_level and batch.row_weight is None
        if parts.log_probs is None or as_measured:
            return parts.next_token
        counted = (batch.row_kind == ROW_NEXT_TOKEN) & (batch.targets != IGNORE_INDEX)
        if self.occurring is not None:
            counted &= self.occurring.place[batch.targets.clamp(min=0)] >= 0
        return -torch.where(counted.flatten(), parts.log_probs, 0).sum() / counted.sum().clamp(min=1)

    def answers(self, batch: PretrainBatch, template: Template) -> Answers:
        """The answers for validation. A method of this module, because this module gathers sharded
        weights."""
        return answers_of(self.model, batch, template, self.occurring)


def base_level_at(settings: LossSettings, step: int) -> float:
    """The share of the base-level loss in a step."""
    return settings.base_level if step >= settings.base_level_from_step else 0.0


def without_reversed_next_tokens(batch: PretrainBatch, reversed_answer: int) -> PretrainBatch:
    """The batch with reversed windows reduced to one target, their order answer."""
    turned = batch.targets[:, -1] == reversed_answer
    ignored = turned[:, None] & (batch.row_kind == ROW_NEXT_TOKEN)
    return dataclasses.replace(batch, targets=batch.targets.masked_fill(ignored, IGNORE_INDEX))


def begin(
    config: PretrainConfig, resumed: checkpoint.Checkpoint | None
) -> tuple[DNAGPT, Vocabulary, dict[str, str]]:
    """The model, its vocabulary and, for the record, path and hash of the model that it started from, if any.

    Raises ConfigError, CheckpointError, FileNotFoundError.
    """
    if resumed is not None:
        return *resumed_model(resumed), resumed.config().get("start", {})
    if config.start.path:
        for name, given, default in (
            ("model", config.model, ModelSettings()),
            ("vocabulary", config.vocabulary, VocabularySettings()),
        ):
            if given != default:
                raise ConfigError(
                    f"[{name}] settings with start.path = {config.start.path!r}: the {name} comes from that model; "
                    "leave these settings out"
                )
    model, vocabulary = start_model(config.start, config.model, config.vocabulary, config.run.seed)
    model.train()
    start = {"path": config.start.path, "sha256": state_hash(model)} if config.start.path else {}
    return model.float(), vocabulary, start


class PretrainingRun:
    """All parts of a run, built and checked before the first step. Raises ConfigError, ValueError,
    OSError."""

    def __init__(
        self, config: PretrainConfig, processes: Processes, resumed: checkpoint.Checkpoint | None = None
    ) -> None:
        """resumed: the checkpoint whose weights the caller will load; config.start is then not read."""
        self.processes = processes
        self.device = pick_device(config.run.device, processes.local_rank)
        self.config = config = with_precision(config, self.device, resumed)
        if config.run.residual == "bf16" and config.run.precision != "bf16":
            raise ConfigError(
                f"run.residual = 'bf16' with run.precision = {config.run.precision!r} on {self.device.type}: wanted "
                "run.precision = 'bf16', or run.residual = 'fp32'"
            )
        self.model, vocabulary, self.start = begin(config, resumed)
        shape = self.model.config
        names = config.template
        template = Template.build(vocabulary, names.gc_prompt, names.order_prompt, names.order_answers)
        n_kmers = config.data.n_kmers or shape.max_len - template.n_extra
        if n_kmers + template.n_extra > shape.max_len:
            raise ConfigError(
                f"data.n_kmers = {n_kmers} and {template.n_extra} tokens of the template: "
                f"model.max_len is {shape.max_len}"
            )
        self.mix = GenomeMix.open(config.data, config.loss.soft_masked_weight)
        # before `expect_random_reads`, because hashing reads the whole file
        self.content_hashes = [genome.content_hash() for genome in self.mix.genomes]
        genomes = [genome.arrays for genome in self.mix.genomes]
        self.maker = BatchMaker(genomes, self.mix.species, n_kmers, vocabulary, template)
        self.sampler = WindowSampler(
            genomes,
            self.maker.length_bp,
            seed=config.data.seed,
            weights=self.mix.weights,
            held_out=self.mix.held_out,
            places=self.mix.places,
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
        # Training uses `drawer`; validation reads its few windows from the mapped files with `maker`.
        self.drawer = self.maker
        if self.placement.resident:
            moved = [genome.to(self.device) for genome in genomes]
            self.drawer = BatchMaker(moved, self.mix.species, n_kmers, vocabulary, template)
        weighing = [BaseWeights(genomes, listed, self.drawer.device) for listed in self.mix.in_loss]
        if weighing:
            self.drawer = self.drawer.weighing(*weighing)
        for genome in self.mix.genomes:
            genome.expect_random_reads()
        if config.run.residual == "bf16":
            self.model.residual_dtype = torch.bfloat16
        # Pre-training samples have no numbers, so the optimizer need not know their embedding.
        self.model.number_embedding.requires_grad_(False)
        occurring = None
        if config.loss.vocabulary == "occurring":
            prompts = (*template.gc_prompt, *template.order_prompt, template.not_reversed, template.reversed)
            on_cpu = occurring_tokens(vocabulary, prompts)
            occurring = on_cpu.to(self.device)
            last = self.model.last_projection
            if (
                resumed is None
                and config.start.path
                and unequal_rest(last.weight, last.bias, on_cpu) > MOST_UNEQUAL
            ):
                raise ConfigError(
                    f"loss.vocabulary = 'occurring' with start.path = {config.start.path!r}: the head's rows of tokens "
                    "that are never a target differ in that model, so one row cannot replace them; wanted "
                    "loss.vocabulary = 'full'"
                )
            equalize_rest(last.weight, last.bias, on_cpu)
        self.losses = PretrainingLosses(
            self.model, config.loss, vocabulary.k, self.maker.length_bp, template.reversed, occurring
        )
        self.cost, self.peak_source = self._cost()
        self.lr_at = rate_of(config)

    @property
    def steps(self) -> int:
        return self.config.run.steps

    @cached_property
    def compiled(self) -> tuple[bool, str]:
        """Whether torch.compile makes the blocks, and why. Tried at first use, which takes seconds on CUDA."""
        wanted = self.config.parallel.compile_blocks
        if wanted == "auto" and self.recorded[0]:
            # the graph has the gain already, and a capture of compiled blocks failed on a card (docs/gpu_measured.md)
            return False, "the step is a CUDA graph"
        return compiles(wanted, self.device, self.steps)

    @cached_property
    def recorded(self) -> tuple[bool, str]:
        """Whether a step is recorded as a CUDA graph, and why."""
        parallel = self.config.parallel
        obstacle = ""
        if self.device.type != "cuda":
            obstacle = f"on {self.device.type}"
        elif self.processes.world_size > 1:
            obstacle = "with several processes"
        elif parallel.activation_checkpointing:
            obstacle = "with parallel.activation_checkpointing"
        elif not self.drawer.can_be_recorded:
            obstacle = "with batches that the host helps to make: mapped genomes, or weights of next tokens"
        if isinstance(parallel.cuda_graph, bool):
            if parallel.cuda_graph and obstacle:
                raise ConfigError(f"parallel.cuda_graph = true {obstacle}: wanted false or auto")
            return parallel.cuda_graph, f"parallel.cuda_graph = {str(parallel.cuda_graph).lower()}"
        if obstacle:
            return False, obstacle
        running = self.cost.flops / (LIKELY_SHARE * self.cost.peak_flops)
        launching = LAUNCHES_A_BLOCK * self.model.num_layers * self.parts * SECONDS_A_LAUNCH
        return (
            running < launching,
            f"{running * 1e3:.1f} ms to run, {launching * 1e3:.1f} ms to launch, by estimate",
        )

    @property
    def arithmetic(self) -> str:
        """The line about precision and compiler in the log."""
        run = self.config.run
        precision = {"bf16": "bf16 by autocast over fp32 weights", "fp32": "fp32"}[run.precision]
        compiled, why = self.compiled
        return (
            f"precision: {precision} (run.precision), residual stream {run.residual} (run.residual); "
            f"blocks {'' if compiled else 'not '}compiled by torch.compile ({why}; parallel.compile_blocks); "
            f"step {'' if self.recorded[0] else 'not '}a CUDA graph ({self.recorded[1]}; parallel.cuda_graph)"
        )

    @cached_property
    def loop(self) -> Loop:
        """The training loop with the distributed model and its optimizer. It is made at first use, by all
        processes together (`Processes.joined`)."""
        config, settings, parallel = self.config, self.config.optimizer, self.config.parallel
        bf16 = config.run.precision == "bf16"
        if parallel.activation_checkpointing:
            self.model.recompute_blocks()
        if self.compiled[0]:
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
        clock.mark_before(self.model.mlm_head[0], "loss")
        if self.processes.world_size > 1 and parallel.sharding == "fsdp":
            clock.watch_shards(self.losses, self.model.blocks)
        elif self.processes.world_size > 1:
            clock.watch_gradients(p for p in self.model.parameters() if p.requires_grad)
        return Loop(
            losses_of=losses,
            optimizer=build_optimizer(
                self.model,
                lr=settings.lr,
                betas=(settings.beta1, settings.beta2),
                eps=settings.eps,
                weight_decay=settings.weight_decay,
                muon=hidden_matrices(self.model) if settings.kind == "muon" else None,
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
            graph=CudaGraph() if self.recorded[0] else None,
            variant=self.variant,
        )

    def variant(self, step: int) -> float:
        """What the host decides for a step, for training/loop.py: the share of the base-level loss."""
        self.losses.base_level = base_level_at(self.config.loss, step)
        return self.losses.base_level

    def batch_at(self, step: int | torch.Tensor, part: int) -> PretrainBatch:
        """The micro-batch `part` of this process in `step`; it depends only on the indices of its samples. A step on
        the device is one for which `variant` was called."""
        if not isinstance(step, torch.Tensor):
            self.variant(step)
        first = step * self.config.run.batch_size + self.first_sample + part * self.part_size
        return self.drawer.sampled(self.sampler, first, self.part_size).to(self.device)

    def _step_bytes(self, shape: ModelConfig) -> int:
        """Peak memory that the model and a step will need on a GPU."""
        parallel = self.config.parallel
        return step_memory(
            shape,
            self.part_size,
            self.maker.n_tokens,
            device="cuda",
            precision=self.config.run.precision,
            shards=self.processes.world_size if parallel.sharding == "fsdp" else 1,
            replicas=self.processes.world_size if parallel.sharding == "ddp" else 1,
            checkpointing=parallel.activation_checkpointing,
            accumulating=self.parts > 1,
        ).total

    def record(self) -> dict[str, Any]:
        """The content of config.json, in the run folder and in every checkpoint."""
        return {
            "format": FORMAT,
            "kind": "pretrain",
            "model": self.model.config.to_dict(),
            "vocabulary": dataclasses.asdict(self.maker.vocabulary),
            "start": self.start,
            "n_kmers": self.maker.n_kmers,
            "settings": self.config.to_dict(),
            "genomes": [
                {
                    **dataclasses.asdict(settings),
                    "held_out": recorded(settings.held_out),
                    "fingerprint": fingerprint,
                    "content_hash": content_hash,
                }
                for settings, fingerprint, content_hash in zip(
                    self.mix.settings, self.mix.fingerprints(), self.content_hashes, strict=True
                )
            ],
            "step_flops": self.cost.flops,
            "peak_flops": {"per_process": self.cost.peak_flops, "source": self.peak_source},
            "corpus": dataclasses.asdict(self.placement),
            "report": ops.report(),
            "versions": versions(),
        }

    def _multiplied_shape(self) -> ModelConfig:
        """The model's shape, with the number of tokens that the loss multiplies as the vocabulary size."""
        occurring = self.losses.occurring
        if occurring is None:
            return self.model.config
        return dataclasses.replace(self.model.config, vocab_size=len(occurring.tokens) + 1)

    def _cost(self) -> tuple[StepCost, str]:
        config, samples = self.config, self.config.run.batch_size
        precision = config.run.precision
        if precision == "fp32" and self.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
            precision = "tf32"
        peak, source = peak_flops(self.device, precision)
        cost = StepCost(
            tokens=samples * self.maker.n_tokens,
            bp=samples * self.maker.length_bp,
            flops=step_flops(self._multiplied_shape(), samples, self.maker.n_tokens).total,
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
        """The validator. It is made at first use, because fitting the Markov chains reads up to 50 Mbp."""
        if self.held_out is None:
            return None
        chains = fit_chains(self.maker.genomes, self.mix.held_out)
        return Validator(self.maker, self.held_out, chains, self.config.validation.batch_size)


def hidden_matrices(model: DNAGPT) -> dict[nn.Parameter, int]:
    """The matrices of the blocks for Muon, with the number of matrices in each: c_attn has three, for q, k
    and v."""
    return {
        cast(nn.Parameter, module.weight): 3 if module is block.attn.c_attn else 1
        for block in model.blocks
        for module in block.modules()
        if isinstance(module, nn.Linear)
    }
