"""A training step and generation of the 0.1B model on a GPU, from a packed genome in its memory.

benchmarks.gpu_report calls `train_rows()` and `generate_rows()`. Before a time is taken, losses and gradients
are compared with plain torch's on the same batch, and logits with the CPU's.
"""

import functools
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.big_genome import random_genome
from benchmarks.gpu_attention import Clock, card_clock
from dnagpt_fast.batch import PretrainBatch
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.model.config import ModelConfig, preset
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops import dispatch
from dnagpt_fast.planning.accelerators import peak_flops
from dnagpt_fast.planning.flops import step_flops
from dnagpt_fast.pretrain.batches import BatchMaker, Template
from dnagpt_fast.training.figures import GIB
from dnagpt_fast.training.optimizer import build_optimizer
from dnagpt_fast.vocab import Vocabulary, reserved_id

PLAIN = {"attention": "reference", "combined_loss": "reference"}
# (model, samples a step): 16 Ki tokens each
STEPS = (("dna_gpt0.1b_m", 32), ("dna_gpt0.1b_h", 4))


class Steps:
    """A model with its optimizer, and batches of real length from a random genome on the device."""

    def __init__(self, config: ModelConfig, samples: int, device: str, packed_bytes: int, bf16: bool) -> None:
        torch.manual_seed(0)
        self.model = DNAGPT.from_config(config).to(device)
        self.device, self.samples, self.bf16, self.config = device, samples, bf16, config
        vocabulary = Vocabulary(dynamic=config.vocab_size == len(Vocabulary()))
        template = Template.build(vocabulary)
        genome = random_genome(packed_bytes, n_every=1_000_000)
        n_kmers = config.max_len - template.n_extra
        self.maker = BatchMaker([genome.to(device)], [reserved_id("R")], n_kmers, vocabulary, template)
        self.sampler = WindowSampler([genome], 6 * n_kmers, seed=1)
        self.optimizer = build_optimizer(self.model, lr=1e-4, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
        self.next_sample = 0

    def batch(self) -> PretrainBatch:
        self.next_sample += self.samples
        return self.maker.sampled(self.sampler, self.next_sample, self.samples)

    def loss(self, batch: PretrainBatch) -> torch.Tensor:
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16):
            return self.model.pretraining_loss(batch).total

    def step(self) -> None:
        """A complete step: coordinates, ids, labels, forward, backward and optimizer."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.batch()).backward()
        self.optimizer.step()

    def check(self) -> None:
        """Loss and the gradient's norm beside plain torch's, on one batch."""
        batch, found = self.batch(), []
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


def train_rows(
    device: str = "cuda",
    clock: Clock = card_clock,
    configs: tuple[tuple[str | ModelConfig, int], ...] = STEPS,
    packed_bytes: int = 64 << 20,
) -> Iterator[dict[str, Any]]:
    """Whole steps in bf16 (fp32 on the CPU): ours, and the same model on plain torch ops."""
    bf16 = device == "cuda"
    peak, source = peak_flops(torch.device(device), "bf16" if bf16 else "fp32")
    for named, samples in configs:
        config = preset(named) if isinstance(named, str) else named
        steps = Steps(config, samples, device, packed_bytes, bf16)
        steps.check()
        for contender, choice in (("ours", {}), ("plain torch", PLAIN)):
            with dispatch.using(**choice):
                steps.step()
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                seconds = clock(steps.step)
            tokens = samples * config.max_len
            found = {"op": "train_step", "contender": contender, "model": str(named), "samples": samples}
            found |= {"ms": seconds * 1e3, "tokens_per_s": tokens / seconds}
            found["share_of_peak"] = step_flops(config, samples, config.max_len).total / seconds / peak
            found["peak_from"] = source
            if device == "cuda":
                found["memory_gib"] = torch.cuda.max_memory_allocated() / GIB
            yield found
        del steps


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
