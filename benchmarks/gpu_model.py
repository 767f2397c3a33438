"""Training steps and generation of the published models on a GPU, from a packed genome in its memory.

benchmarks.gpu_report calls `train_rows()`, `profile_rows()` and `generate_rows()`. Before a time is taken, losses and
gradients are compared with plain torch's on the same batch, and logits with the CPU's.
"""

import functools
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.big_genome import random_genome
from benchmarks.gpu_attention import Clock, card_clock
from benchmarks.plain_gpt import PlainGPT
from dnagpt_fast.batch import PretrainBatch
from dnagpt_fast.cuda_graph import CudaGraph
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.model.config import ModelConfig, preset
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops import dispatch
from dnagpt_fast.planning.accelerators import peak_flops
from dnagpt_fast.planning.flops import step_flops
from dnagpt_fast.pretrain.batches import BatchMaker, Template
from dnagpt_fast.pretrain.job import PretrainingLosses
from dnagpt_fast.pretrain.settings import LossSettings
from dnagpt_fast.training.figures import GIB
from dnagpt_fast.training.loop import Loop, StopRequest
from dnagpt_fast.training.optimizer import build_optimizer
from dnagpt_fast.training.step_graph import WARM_STEPS
from dnagpt_fast.vocab import Vocabulary, reserved_id

PLAIN = {"attention": "reference", "combined_loss": "reference", "residual_norm": "reference", "mlp": "dense"}
# (model, samples a step, names of WAYS): each compilation takes a quarter of a minute or more
STEPS: tuple[tuple[str | ModelConfig, int, tuple[str, ...]], ...] = (
    (
        "dna_gpt0.1b_m",
        64,
        ("ours", "ours, compiled", "ours, compiled, bf16 stream", "plain torch, compiled"),
    ),
    ("dna_gpt0.1b_m", 8, ("ours", "ours, graphed", "ours, compiled, graphed")),
    ("dna_gpt0.1b_h", 8, ("ours",)),
    ("dna_gpt3b_m", 8, ("ours", "ours, compiled")),
)
# classes of a step's kernels on a GPU, by the first pattern that is found in a kernel's name
KERNELS = {
    "attention": r"attention_|flash|fmha|sdpa",
    "combined loss": r"combined_loss_",
    "products with GELU": r"mlp_(up|dwide)",
    "sampler": r"sample_batch|kmer_tokenize|gc_count",
    "products": r"gemm|cutlass|nvjet|cublas|mm_kernel|addmm|aten::mm",
    "optimizer": r"adam|multi_tensor",
    "norms": r"layer_norm|LayerNorm|residual_norm_",
    "copies": r"[Mm]emcpy|[Mm]emset|copy",
    "others": "",
}


class Steps:
    """A model with its optimizer, and batches of real length from a random genome on the device."""

    def __init__(self, config: ModelConfig, samples: int, device: str, packed_bytes: int, bf16: bool) -> None:
        torch.manual_seed(0)
        with torch.device(device):  # the 3B's initial values take a minute on the CPU
            self.model = DNAGPT.from_config(config)
        self.device, self.samples, self.bf16, self.config = device, samples, bf16, config
        vocabulary = Vocabulary(dynamic=config.vocab_size == len(Vocabulary()))
        template = Template.build(vocabulary)
        genome = random_genome(packed_bytes, n_every=1_000_000)
        n_kmers = config.max_len - template.n_extra
        self.maker = BatchMaker([genome.to(device)], [reserved_id("R")], n_kmers, vocabulary, template)
        self.sampler = WindowSampler([genome], 6 * n_kmers, seed=1)
        self.optimizer = build_optimizer(self.model, lr=1e-4, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
        self.next_sample = 0
        losses = PretrainingLosses(
            self.model, LossSettings(), vocabulary.k, self.maker.length_bp, template.reversed
        )
        self.loop = Loop(
            losses_of=losses,
            optimizer=self.optimizer,
            batch_at=lambda step, part: self.maker.sampled(self.sampler, step * samples, samples),
            lr_at=lambda step: 1e-4,
            describe=lambda batch: [],
            bf16=bf16,
            device=torch.device(device),
        )
        self._reports = self.loop.run(0, 1 << 40, StopRequest(), lambda done: False)

    def batch(self) -> PretrainBatch:
        self.next_sample += self.samples
        return self.maker.sampled(self.sampler, self.next_sample, self.samples)

    def loss(self, batch: PretrainBatch) -> torch.Tensor:
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16):
            return self.model.pretraining_loss(batch).total

    def step(self) -> None:
        """A complete step of pre-training's loop: coordinates, ids, labels, forward, backward, clipping and optimizer.
        Its numbers are read by the next call, as in a run."""
        next(self._reports)

    def check(self) -> None:
        """Loss and the gradient's norm beside plain torch's, on one batch of one or two samples: plain torch keeps
        every attention weight."""
        batch, found = self.maker.sampled(self.sampler, 0, min(self.samples, 2)), []
        for choice in ({}, PLAIN):
            self.optimizer.zero_grad(set_to_none=True)
            with dispatch.using(**choice):
                loss = self.loss(batch)
                loss.backward()
            gradients = [
                p.grad.double().square().sum() for p in self.model.parameters() if p.grad is not None
            ]
            found.append((loss.item(), torch.stack(gradients).sum().sqrt().item()))
        self.optimizer.zero_grad(set_to_none=True)
        tolerance = 0.02 if self.bf16 else 1e-4
        for name, ours, plain in zip(("loss", "gradient norm"), *found, strict=True):
            assert abs(ours - plain) <= tolerance * abs(plain), f"{name}: {ours}, plain torch has {plain}"


def compiled_step(steps: Steps) -> Callable[[], None]:
    """The same step with blocks compiled by torch.compile, as `parallel.compile_blocks = true` does."""
    steps.model.compile_blocks()
    return steps.step


def half_stream_step(steps: Steps) -> Callable[[], None]:
    """The compiled step with the residual stream in bf16, as `run.residual = "bf16"` does."""
    steps.model.residual_dtype = torch.bfloat16
    return compiled_step(steps)


def graphed_step(steps: Steps) -> Callable[[], None]:
    """The whole step as one CUDA graph, as `parallel.cuda_graph = true` does."""
    steps.loop.graph = CudaGraph()
    for _ in range(WARM_STEPS + 1):
        steps.step()
    return steps.step


def compiled_and_graphed_step(steps: Steps) -> Callable[[], None]:
    """Both."""
    compiled_step(steps)
    return graphed_step(steps)


def peer_step(steps: Steps) -> Callable[[], None]:
    """A step of benchmarks.plain_gpt on our batches, compiled as a whole on a GPU."""
    # their memory is needed
    steps.model = steps.optimizer = steps.loop = steps._reports = None  # type: ignore[assignment]
    torch.manual_seed(0)
    peer = PlainGPT(steps.config).to(steps.device)
    optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-4, fused=steps.device == "cuda")
    loss_of = torch.compile(peer) if steps.device == "cuda" else peer

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        batch = steps.batch()
        with torch.autocast(steps.device, dtype=torch.bfloat16, enabled=steps.bf16):
            loss = loss_of(batch.token_ids, batch.targets)
        loss.backward()
        optimizer.step()

    return step


WAYS: dict[str, Callable[[Steps], Callable[[], None]]] = {
    "ours": lambda steps: steps.step,
    "ours, compiled": compiled_step,
    "ours, compiled, bf16 stream": half_stream_step,
    "ours, graphed": graphed_step,
    "ours, compiled, graphed": compiled_and_graphed_step,
    "plain torch, compiled": peer_step,
}


def train_rows(
    device: str = "cuda",
    clock: Clock = card_clock,
    configs: tuple[tuple[str | ModelConfig, int, tuple[str, ...]], ...] = STEPS,
    packed_bytes: int = 64 << 20,
) -> Iterator[dict[str, Any]]:
    """Whole steps in bf16 (fp32 on the CPU) in each of WAYS; a way that does not fit or run says so in its row."""
    bf16 = device == "cuda"
    peak, source = peak_flops(torch.device(device), "bf16" if bf16 else "fp32")
    for named, samples, ways in configs:
        config = preset(named) if isinstance(named, str) else named
        for contender in ways:
            found = {"op": "train_step", "contender": contender, "model": str(named), "samples": samples}
            try:
                steps = Steps(config, samples, device, packed_bytes, bf16)
                if contender == "ours" and config.num_layers < 60:  # plain torch's 3B would not fit
                    steps.check()
                step = WAYS[contender](steps)
                began = time.perf_counter()
                step()
                if device == "cuda":
                    torch.cuda.synchronize()
                found["first_step_s"] = time.perf_counter() - began
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                seconds = clock(step)
            except RuntimeError as refusal:  # out of memory is one
                yield found | {"refused": str(refusal).splitlines()[0]}
            else:
                tokens = samples * config.max_len
                found |= {"ms": seconds * 1e3, "tokens_per_s": tokens / seconds}
                found["share_of_peak"] = step_flops(config, samples, config.max_len).total / seconds / peak
                found["peak_from"] = source
                if device == "cuda":
                    found["memory_gib"] = torch.cuda.max_memory_allocated() / GIB
                yield found
            steps = step = None
            if device == "cuda":
                torch.cuda.empty_cache()


def compile_rows(
    device: str = "cuda",
    configs: tuple[tuple[str | ModelConfig, int, tuple[str, ...]], ...] = STEPS,
    packed_bytes: int = 1 << 20,
) -> Iterator[dict[str, Any]]:
    """Two steps of each of WAYS that torch.compile serves, and their seconds: what it compiles is then on disk, so that
    train_rows takes its times sooner."""
    for named, samples, ways in configs:
        config = preset(named) if isinstance(named, str) else named
        for contender in (way for way in ways if "compiled" in way):
            began = time.perf_counter()
            step = WAYS[contender](Steps(config, samples, device, packed_bytes, bf16=device == "cuda"))
            step()
            step()
            yield {
                "op": "compile",
                "contender": contender,
                "model": str(named),
                "s": time.perf_counter() - began,
            }


def profile_rows(
    device: str = "cuda", config: ModelConfig | None = None, samples: int = 64, packed_bytes: int = 64 << 20
) -> Iterator[dict[str, Any]]:
    """One step of pre-training under torch's profiler: milliseconds, share and launches of each class of kernels."""
    steps = Steps(config or preset("dna_gpt0.1b_m"), samples, device, packed_bytes, bf16=device == "cuda")
    steps.step()
    activity = torch.profiler.ProfilerActivity
    kinds = [activity.CPU, *([activity.CUDA] if device == "cuda" else [])]
    with torch.profiler.profile(activities=kinds) as profile:
        steps.step()
        if device == "cuda":
            torch.cuda.synchronize()
    microseconds: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    for event in profile.events():
        if device == "cuda" and event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        name = next(kind for kind, pattern in KERNELS.items() if re.search(pattern, event.name))
        microseconds[name] += event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        launches[name] += 1
    total = sum(microseconds.values())
    for name in KERNELS:
        found = {"op": "profile", "kernels": name, "ms": microseconds[name] / 1e3}
        yield found | {"share": microseconds[name] / max(total, 1e-9), "launches": launches[name]}


def generate_rows(
    device: str = "cuda",
    clock: Clock = card_clock,
    config: ModelConfig | None = None,
    samples: int = 10,
    new_tokens: int = 253,
) -> Iterator[dict[str, Any]]:
    """Greedy generation with the key-value cache; the first logits are compared with the CPU's."""
    config = config or preset("dna_gpt0.1b_m")
    torch.manual_seed(0)
    model = DNAGPT.from_config(config).eval()
    prompt = torch.randint(34, config.vocab_size, (samples, 3))
    with torch.no_grad():
        wanted = model(prompt)
        model = model.to(device)
        got = model(prompt.to(device)).cpu()
    error = (got - wanted).abs().max().item()
    # both sum the same numbers in fp32, in different orders
    assert error <= 1e-3 * wanted.abs().max().item(), f"logits differ from the CPU's by {error}"
    for dtype in (torch.float32, torch.bfloat16):
        model = model.to(dtype)
        seconds = clock(functools.partial(model.generate, prompt.to(device), new_tokens))
        found = {"op": "generate", "dtype": str(dtype), "samples": samples, "new_tokens": new_tokens}
        yield found | {"s": seconds, "tokens_per_s": samples * new_tokens / seconds}
