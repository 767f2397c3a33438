"""Tokenize, GC count and sampling on a GPU: rates as shares of the GPU's copy rate.

benchmarks.gpu_report calls `rows()`. Every result is compared with that of the CPU kernels, bit for bit,
before a time is taken.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.big_genome import random_genome
from benchmarks.gpu_attention import Clock, card_clock
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.ops import BatchSampler, SampledBatch, gc_count, kmer_tokenize
from dnagpt_fast.packed import PackedGenome

PACKED_BYTES = 64 << 20
N_KMERS = 510  # of a window of the 512-token models
DTYPES = (torch.uint16, torch.int32, torch.int64)


def copy_rate(device: str, clock: Clock, n_bytes: int) -> float:
    """Bytes per second, read plus written, of a copy in device memory."""
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * n_bytes / clock(lambda: target.copy_(source))


def windows(genome: PackedGenome, count: int, length_bp: int) -> tuple[Tensor, Tensor, Tensor]:
    """contig, start_bp and orientation of `count` windows, int64 (count,) on the host."""
    generator = torch.Generator().manual_seed(count)
    starts = torch.randint(0, int(genome.length_bp[0]) - length_bp + 1, (count,), generator=generator)
    return torch.zeros(count, dtype=torch.int64), starts, torch.arange(count) % 4


def rows(
    device: str = "cuda",
    clock: Clock = card_clock,
    packed_bytes: int = PACKED_BYTES,
    batches: tuple[int, ...] = (64, 4096),
) -> Iterator[dict[str, Any]]:
    """One long window, for the rate of the kernel; then batches of windows as in training."""
    genome = random_genome(packed_bytes, n_every=1_000_000)
    on_card = genome.to(device)
    length_bp = int(genome.length_bp[0])
    copied = copy_rate(device, clock, 8 * packed_bytes)
    yield {"op": "copy", "case": f"{8 * packed_bytes >> 20} MiB", "gb_per_s": copied / 1e9}

    def row(op: str, case: str, call: Callable[[], object], n_bytes: float) -> dict[str, Any]:
        seconds = clock(call)
        rate = n_bytes / seconds
        found = {"op": op, "case": case, "us": seconds * 1e6, "gb_per_s": rate / 1e9}
        return found | {"share_of_copy": rate / copied}

    one = (torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))
    n_tokens = (length_bp - 1) // 6
    for dtype in DTYPES:
        for turn in (0, 3):
            call = tokenizer(on_card, *one, torch.tensor([turn]), n_tokens, dtype)
            same(call(), tokenizer(genome, *one, torch.tensor([turn]), n_tokens, dtype)())
            case = f"one window, {dtype}, orientation {turn}"
            yield row("kmer_tokenize", case, call, n_tokens * (1.5 + dtype.itemsize))
    count = counter(on_card, *one, torch.tensor([length_bp - 1]))
    same(count(), counter(genome, *one, torch.tensor([length_bp - 1]))())
    yield row("gc_count", "one window", count, length_bp / 4)

    sampler = WindowSampler([genome], 6 * N_KMERS, seed=1)
    for B in batches:
        taken = windows(genome, B, 6 * N_KMERS)
        call = tokenizer(on_card, *taken, N_KMERS, torch.uint16)
        same(call(), tokenizer(genome, *taken, N_KMERS, torch.uint16)())
        yield row("kmer_tokenize", f"{B} windows of {N_KMERS}, uint16", call, B * N_KMERS * 3.5)
        lengths = torch.full((B,), 6 * N_KMERS)
        count = counter(on_card, *taken[:2], lengths)
        same(count(), counter(genome, *taken[:2], lengths)())
        yield row("gc_count", f"{B} windows of {6 * N_KMERS} bp", count, B * N_KMERS * 1.5)
        draw, draw_here = (BatchSampler([g], sampler.tables, 1, N_KMERS) for g in (on_card, genome))
        same(fields(draw(7, B)), fields(draw_here(7, B)))
        found = row(
            "sample_batch", f"{B} windows of {N_KMERS}", functools.partial(draw, 7, B), B * N_KMERS * 5.0
        )
        yield found | {"tokens_per_s": B * N_KMERS / found["us"] * 1e6}


def tokenizer(
    genome: PackedGenome, contig: Tensor, start_bp: Tensor, turn: Tensor, n_tokens: int, dtype: torch.dtype
) -> Callable[[], Tensor]:
    """A call whose windows are already on the genome's device, as in a training step."""
    taken = [x.to(genome.device) for x in (contig, start_bp, turn)]
    return lambda: kmer_tokenize(genome, taken[0], taken[1], n_tokens, taken[2], dtype=dtype)


def counter(
    genome: PackedGenome, contig: Tensor, start_bp: Tensor, length_bp: Tensor
) -> Callable[[], tuple[Tensor, Tensor]]:
    taken = [x.to(genome.device) for x in (contig, start_bp, length_bp)]
    return lambda: gc_count(genome, *taken)


def fields(batch: SampledBatch) -> tuple[Tensor, ...]:
    w = batch.windows
    described = (w.genome, w.contig, w.start_bp, w.orientation)
    return (*described, batch.kmers, batch.gc_fraction, batch.gc_known, batch.reversed)


def same(got: Tensor | tuple[Tensor, ...], wanted: Tensor | tuple[Tensor, ...]) -> None:
    """Raises AssertionError where a bit differs."""
    pairs = [(got, wanted)] if isinstance(got, Tensor) else list(zip(got, wanted, strict=True))
    for i, (g, w) in enumerate(pairs):
        assert isinstance(g, Tensor)
        assert isinstance(w, Tensor)
        assert g.dtype == w.dtype
        assert torch.equal(g.cpu(), w.cpu()), f"result {i} differs from the CPU kernel's"
