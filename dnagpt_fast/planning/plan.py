"""The cost of a pre-training run, estimated before a GPU is rented: memory, batch, steps, hours, disk.

All of it is computed from the model's shape: flops.py, step_memory.py, and the data sheets in accelerators.py. The
assumptions (above all the utilisation) are printed with the answer.
"""

import math
from dataclasses import dataclass

from dnagpt_fast.model.config import ModelConfig, parameter_count, preset
from dnagpt_fast.planning.accelerators import Accelerator, accelerator
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

    model         a published name
    corpus_bp     base pairs of the genomes
    batch_size    samples per step over all GPUs; 0: one micro-batch per GPU
    micro_batch   samples of one forward pass on one GPU; 0: the largest power of two that fits
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
    precision: str = "bf16"
    utilisation: float = 0.4
    sharded: bool | None = None
    checkpointing: bool = False
    keep: int = 3


@dataclass(frozen=True)
class Plan:
    request: Request
    config: ModelConfig
    accelerator: Accelerator
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
        peak = self.accelerator.peak_tflops[request.precision]
        kind = f"FSDP2 over {request.gpus} GPUs" if self.sharded else "a whole replica on each GPU"
        return [
            ("model", f"{request.model}, {parameter_count(self.config):,} parameters, {request.precision}"),
            ("GPUs", f"{request.gpus} x {request.gpu}, {kind}"),
            *((f"  {part.replace('_', ' ')}", _gib(getattr(memory, part))) for part in parts),
            ("memory per GPU", f"{_gib(memory.total)} of {_gib(self.capacity)} usable"),
            (
                "batch",
                f"{self.batch_size} samples per step: {request.gpus} GPUs x {self.micro_batch} x {self.accumulation} "
                f"micro-batches, {self.config.max_len} tokens each",
            ),
            ("steps", f"{self.steps:,} for {request.epochs:g} x {request.corpus_bp:,.0f} bp"),
            (
                "speed",
                f"{self.tokens_per_s:,.0f} tokens/s, if each GPU reaches {request.utilisation:.0%} of its "
                f"{peak:,.0f} TFLOP/s",
            ),
            *self._predicted(),
            ("time", f"{self.hours:,.1f} hours, {self.hours * request.gpus:,.1f} GPU hours"),
            ("a checkpoint", _gib(self.checkpoint_bytes)),
            ("disk", f"{_gib(self.disk_bytes)}: {request.keep} checkpoints and one being written"),
        ]

    def _predicted(self) -> list[tuple[str, str]]:
        """What the parts of a step add up to on one GPU, where predicted.py has them: bf16, one micro-batch a step."""
        if self.request.precision != "bf16":
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
            f"{_gib(self.capacity)} usable on {self.request.gpu}"
        ]
        if not self.request.checkpointing:
            lines.append("activation checkpointing would lower the activations: --checkpointing")
        if not self.sharded and self.request.gpus > 1:
            lines.append("sharding would split weights, gradients and optimizer: --sharded")
        elif self.memory.weights + self.memory.gradients + self.memory.optimizer > self.capacity // 2:
            lines.append("more GPUs share weights, gradients and optimizer: a larger --gpus with --sharded")
        if self.request.micro_batch > 1:
            lines.append("a smaller --micro-batch needs less")
        return lines


def make_plan(request: Request) -> Plan:
    """Raises ValueError for an unknown model, GPU or precision, and for counts that do not fit each other."""
    config, gpu = preset(request.model), accelerator(request.gpu)
    _check(request, gpu)
    capacity = int(gpu.memory_gib * GIB * USABLE_SHARE)
    samples_per_gpu = request.batch_size // request.gpus if request.batch_size else MAX_MICRO_BATCH

    def memory_of(samples: int, sharded: bool) -> StepMemory:
        return step_memory(
            config,
            samples,
            config.max_len,
            device="cuda",
            precision=request.precision,
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
    bp = batch_size * (config.max_len - TEMPLATE_TOKENS) * KMER_BP
    steps = math.ceil(request.corpus_bp * request.epochs / bp)
    rate = gpu.peak_tflops[request.precision] * 1e12 * request.utilisation * request.gpus
    seconds = step_flops(config, batch_size, config.max_len).total / rate
    checkpoint_bytes = 4 * parameter_count(config) + 8 * trained_count(config)
    return Plan(
        request=request,
        config=config,
        accelerator=gpu,
        sharded=sharded,
        micro_batch=micro_batch,
        batch_size=batch_size,
        accumulation=batch_size // (micro_batch * request.gpus),
        memory=memory_of(micro_batch, sharded),
        capacity=capacity,
        steps=steps,
        tokens_per_s=batch_size * config.max_len / seconds,
        hours=steps * seconds / 3600,
        checkpoint_bytes=checkpoint_bytes,
        disk_bytes=checkpoint_bytes * (request.keep + 1),
    )


def _check(request: Request, gpu: Accelerator) -> None:
    for name, low in (("gpus", 1), ("batch_size", 0), ("micro_batch", 0), ("keep", 1)):
        if getattr(request, name) < low:
            raise ValueError(f"{name} = {getattr(request, name)}: wanted at least {low}")
    for name in ("corpus_bp", "epochs"):
        if not getattr(request, name) > 0:
            raise ValueError(f"{name} = {getattr(request, name)}: wanted more than 0")
    if not 0 < request.utilisation <= 1:
        raise ValueError(f"utilisation = {request.utilisation}: wanted a share in (0, 1]")
    if request.precision not in ("bf16", "fp32") or request.precision not in gpu.peak_tflops:
        known = [name for name in ("bf16", "fp32") if name in gpu.peak_tflops]
        raise ValueError(f"precision {request.precision!r}: {gpu.name} trains in {' or '.join(known)}")
    if request.batch_size % request.gpus:
        raise ValueError(f"batch_size = {request.batch_size} cannot be shared equally by {request.gpus} GPUs")
    if request.sharded and request.gpus == 1:
        raise ValueError("--sharded needs several GPUs: wanted --gpus of 2 or more")


def _gib(count: int) -> str:
    return f"{count / GIB:,.2f} GiB"
