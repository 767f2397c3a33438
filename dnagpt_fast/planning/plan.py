"""The cost of a pre-training run, estimated before a GPU is rented: memory, batch, steps, hours, disk.

All of it is computed from the model's shape: flops.py, step_memory.py, and the data sheets in accelerators.py. The
assumptions (above all the utilisation) are printed with the answer.
"""

import math
from dataclasses import dataclass
from typing import Any

from dnagpt_fast.model.config import ModelConfig, parameter_count, preset
from dnagpt_fast.planning.accelerators import ACCELERATORS, Accelerator, accelerator
from dnagpt_fast.planning.flops import step_flops
from dnagpt_fast.planning.predicted import predicted_parts
from dnagpt_fast.planning.step_memory import StepMemory, step_memory, trained_count
from dnagpt_fast.training.figures import GIB

MAX_MICRO_BATCH = 512
# Of a GPU's memory; the rest is for the CUDA context, the buffers of the communication and fragmentation.
USABLE_SHARE = 0.92
TEMPLATE_TOKENS = 5  # species, <=>, <M>, <=>, <B>
KMER_BP = 6


@dataclass(frozen=True)
class Request:
    """The run to estimate.

    model         a published name, or that of the shape
    shape         of the model; None: the published one
    gpu           a name of accelerators.py
    corpus_bp     base pairs of the genomes
    steps         of the run; 0: as many as the corpus has
    tokens, kmer_bp  tokens of a sample, 0: max_len; and bases of a k-mer
    template      tokens of a sample that are no k-mers
    batch_size    samples per step over all GPUs; 0: one micro-batch per GPU
    micro_batch   samples of one forward pass on one GPU; 0: the largest power of two that fits
    precision     bf16 or fp32; empty: bf16 where the device has it
    utilisation   share of the data sheet's peak rate
    sharded       None: FSDP2 only if a replica does not fit
    keep          checkpoints kept on disk
    """

    model: str
    gpu: str = "h100"
    gpus: int = 1
    corpus_bp: float = 3.1e9
    epochs: float = 1.0
    batch_size: int = 0
    micro_batch: int = 0
    precision: str = ""
    utilisation: float = 0.4
    sharded: bool | None = None
    checkpointing: bool = False
    keep: int = 3
    shape: ModelConfig | None = None
    steps: int = 0
    tokens: int = 0
    template: int = TEMPLATE_TOKENS
    kmer_bp: int = KMER_BP


@dataclass(frozen=True)
class Plan:
    request: Request
    config: ModelConfig
    accelerator: Accelerator
    precision: str
    tokens: int
    sharded: bool
    micro_batch: int
    batch_size: int
    accumulation: int
    memory: StepMemory
    capacity: int
    steps: int
    tokens_per_s: float
    hours: float
    checkpoint_bytes: int
    disk_bytes: int

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.capacity

    def rows(self) -> list[tuple[str, str]]:
        """The lines that the command prints: label and value."""
        request, memory = self.request, self.memory
        parts = ("weights", "gradients", "optimizer", "activations", "loss_head")
        peak = self.accelerator.peak_tflops[self.precision]
        kind = f"FSDP2 over {request.gpus} GPUs" if self.sharded else "a whole replica on each GPU"
        on_cpu = self.accelerator.name == "cpu"
        device = "this machine's processor" if on_cpu else f"{request.gpus} x {self.accelerator.name}, {kind}"
        length = f"{request.epochs:g} x {request.corpus_bp:,.0f} bp"
        if request.steps:
            length = f"{self.bases:,} bp"
        return [
            ("model", f"{request.model}, {parameter_count(self.config):,} parameters, {self.precision}"),
            ("device" if on_cpu else "GPUs", device),
            *((f"  {part.replace('_', ' ')}", _gib(getattr(memory, part))) for part in parts),
            (
                "memory" if on_cpu else "memory per GPU",
                f"{_gib(memory.total)} of {_gib(self.capacity)} usable",
            ),
            (
                "batch",
                f"{self.batch_size} samples per step: {'' if on_cpu else f'{request.gpus} GPUs x '}{self.micro_batch} "
                f"x {self.accumulation} micro-batches, {self.tokens} tokens each",
            ),
            ("steps", f"{self.steps:,} for {length}"),
            *(
                self._times(f"{peak:,.0f} TFLOP/s" if peak > 10 else f"{peak:.3g} TFLOP/s")
                if self.fits
                else ()
            ),
            ("a checkpoint", _gib(self.checkpoint_bytes)),
            ("disk", f"{_gib(self.disk_bytes)}: {request.keep} checkpoints and one being written"),
        ]

    def _times(self, peak: str) -> list[tuple[str, str]]:
        """Speed and time. A run that does not fit has none."""
        gpus = self.request.gpus
        total = "" if gpus == 1 else f", {readable_time(self.hours * gpus)} of one GPU"
        return [
            (
                "speed",
                f"{self.tokens_per_s:,.0f} tokens/s, if {self.request.utilisation:.0%} of the {peak} of each device "
                f"are reached",
            ),
            *self._predicted(),
            ("time", f"{readable_time(self.hours)}{total}"),
        ]

    @property
    def bases(self) -> int:
        """Base pairs of all samples of the run."""
        return self.steps * self.batch_size * (self.tokens - self.request.template) * self.request.kmer_bp

    def values(self) -> dict[str, Any]:
        """The numbers of `rows`, for programs."""
        memory = self.memory
        parts = {name: getattr(memory, name) for name in memory.__dataclass_fields__}
        return {
            "model": self.request.model,
            "parameters": parameter_count(self.config),
            "precision": self.precision,
            "device": self.accelerator.name,
            "gpus": self.request.gpus,
            "sharded": self.sharded,
            "fits": self.fits,
            "memory_bytes": {**parts, "total": memory.total, "usable": self.capacity},
            "batch_size": self.batch_size,
            "micro_batch": self.micro_batch,
            "steps": self.steps,
            "bases": self.bases,
            "tokens_per_s": self.tokens_per_s if self.fits else None,
            "hours": self.hours if self.fits else None,
            "checkpoint_bytes": self.checkpoint_bytes,
            "disk_bytes": self.disk_bytes,
            "remedies": self.remedies(),
        }

    def _predicted(self) -> list[tuple[str, str]]:
        """What the parts of a step add up to on one GPU, where predicted.py has them: bf16, one micro-batch a step."""
        if self.precision != "bf16" or self.accelerator not in ACCELERATORS:
            return []
        *parts, step = predicted_parts(self.config, self.micro_batch, self.accelerator)
        each = ", ".join(f"{row['part']} {row['ms']:.1f}" for row in parts)
        return [
            (
                "predicted",
                f"{step['ms']:,.1f} ms for {self.micro_batch} samples on one GPU ({each}): "
                f"{step['tokens_per_s']:,.0f} tokens/s, {step['share_of_peak']:.0%} of the peak (docs/scaling.md)",
            )
        ]

    def remedies(self) -> list[str]:
        """Ways to make the run fit; empty if it fits."""
        if self.fits:
            return []
        lines = [
            f"does not fit: {_gib(self.memory.total)} per GPU at {self.micro_batch} sample(s) per micro-batch, "
            f"{_gib(self.capacity)} usable on {self.accelerator.name}"
        ]
        state = self.memory.weights + self.memory.gradients + self.memory.optimizer
        if not self.request.checkpointing:
            lines.append("activation checkpointing would lower the activations: --checkpointing")
        if not self.sharded and self.request.gpus > 1:
            lines.append("sharding would split weights, gradients and optimizer: --sharded")
        elif self.accelerator.name != "cpu" and state > self.capacity // 2:
            lines.append("more GPUs share weights, gradients and optimizer: a larger --gpus with --sharded")
        if self.request.micro_batch > 1:
            lines.append("a smaller --micro-batch needs less")
        return lines


def make_plan(request: Request) -> Plan:
    """Raises ValueError for an unknown model, GPU or precision, and for counts that do not fit each other."""
    config, gpu = request.shape or preset(request.model), accelerator(request.gpu)
    precision = request.precision or ("bf16" if "bf16" in gpu.peak_tflops else "fp32")
    tokens = request.tokens or config.max_len
    _check(request, precision, gpu)
    capacity = int(gpu.memory_gib * GIB * USABLE_SHARE)
    samples_per_gpu = request.batch_size // request.gpus if request.batch_size else MAX_MICRO_BATCH

    def memory_of(samples: int, sharded: bool) -> StepMemory:
        return step_memory(
            config,
            samples,
            tokens,
            device="cpu" if gpu.name == "cpu" else "cuda",
            precision=precision,
            shards=request.gpus if sharded else 1,
            replicas=1 if sharded else request.gpus,
            checkpointing=request.checkpointing,
            accumulating=bool(request.batch_size) and samples < samples_per_gpu,
        )

    sharded = request.sharded
    if sharded is None:
        sharded = request.gpus > 1 and memory_of(request.micro_batch or 1, False).total > capacity
    micro_batch = request.micro_batch
    if not micro_batch:
        fitting = [
            size
            for size in (2**power for power in range(MAX_MICRO_BATCH.bit_length()))
            if size <= samples_per_gpu
            and (not request.batch_size or samples_per_gpu % size == 0)
            and memory_of(size, sharded).total <= capacity
        ]
        micro_batch = max(fitting, default=1)
    batch_size = request.batch_size or micro_batch * request.gpus
    if batch_size % (micro_batch * request.gpus):
        raise ValueError(
            f"a batch of {batch_size} is no multiple of {request.gpus} GPUs x {micro_batch} samples per micro-batch"
        )
    bp = batch_size * (tokens - request.template) * request.kmer_bp
    steps = request.steps or math.ceil(request.corpus_bp * request.epochs / bp)
    rate = gpu.peak_tflops[precision] * 1e12 * request.utilisation * request.gpus
    seconds = step_flops(config, batch_size, tokens).total / rate
    checkpoint_bytes = 4 * parameter_count(config) + 8 * trained_count(config)
    return Plan(
        request=request,
        config=config,
        accelerator=gpu,
        precision=precision,
        tokens=tokens,
        sharded=sharded,
        micro_batch=micro_batch,
        batch_size=batch_size,
        accumulation=batch_size // (micro_batch * request.gpus),
        memory=memory_of(micro_batch, sharded),
        capacity=capacity,
        steps=steps,
        tokens_per_s=batch_size * tokens / seconds,
        hours=steps * seconds / 3600,
        checkpoint_bytes=checkpoint_bytes,
        disk_bytes=checkpoint_bytes * (request.keep + 1),
    )


def _check(request: Request, precision: str, gpu: Accelerator) -> None:
    for name, low in (("gpus", 1), ("batch_size", 0), ("micro_batch", 0), ("keep", 1)):
        if getattr(request, name) < low:
            raise ValueError(f"{name} = {getattr(request, name)}: wanted at least {low}")
    for name in ("corpus_bp", "epochs"):
        if not getattr(request, name) > 0:
            raise ValueError(f"{name} = {getattr(request, name)}: wanted more than 0")
    if not 0 < request.utilisation <= 1:
        raise ValueError(f"utilisation = {request.utilisation}: wanted a share in (0, 1]")
    if precision not in ("bf16", "fp32") or precision not in gpu.peak_tflops:
        known = [name for name in ("bf16", "fp32") if name in gpu.peak_tflops]
        raise ValueError(f"precision {precision!r}: {gpu.name} trains in {' or '.join(known)}")
    if request.batch_size % request.gpus:
        raise ValueError(f"batch_size = {request.batch_size} cannot be shared equally by {request.gpus} GPUs")
    if gpu.name == "cpu" and request.gpus > 1:
        raise ValueError(f"gpus = {request.gpus} with the processor of this machine: wanted 1")
    if request.sharded and request.gpus == 1:
        raise ValueError("--sharded needs several GPUs: wanted --gpus of 2 or more")


def readable_time(hours: float) -> str:
    """0.05 -> `3.0 minutes`: hours from 2 hours on, minutes from 2 minutes on, then seconds."""
    for unit, size in (("hours", 1.0), ("minutes", 60.0)):
        if hours * size >= 2:
            return f"{hours * size:,.1f} {unit}"
    return f"{hours * 3600:,.1f} seconds"


def _gib(count: int) -> str:
    return f"{count / GIB:,.2f} GiB"
