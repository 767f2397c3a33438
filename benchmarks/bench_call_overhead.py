"""The cost of calling a CUDA op without its kernel: the launch is removed, the rest runs as on a GPU.

    pytest -s benchmarks/bench_call_overhead.py

Windows, genome and outputs are in host memory in place of device memory. Each call allocates its outputs, so
torch.empty is measured for comparison. Printed: seconds of CALLS calls, and microseconds per call.
"""

import types
from collections.abc import Callable

import pytest
import torch

from benchmarks.contest import contest
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.ops import BatchSampler, gc_count, kmer_tokenize, native
from tests.ops.packed_genomes import packed_genome, random_text

CALLS = 10_000
B, N_KMERS = 64, 510


class View:
    def __init__(self, *addresses: object) -> None:
        pass

    def view_bytes(self) -> bytes:
        return bytes(72)


@pytest.fixture
def no_launch(monkeypatch):
    """The native module with CUDA functions that return at once, used for every tensor."""
    real = native._native
    stub = types.SimpleNamespace(**{name: getattr(real, name) for name in dir(real) if name[0] != "_"})
    launched: list[str] = []
    stub.CudaGenome = View
    for name in ("kmer_tokenize_cuda", "gc_count_cuda", "sample_batch_cuda"):
        setattr(stub, name, lambda *arguments, name=name: launched.append(name))
    monkeypatch.setattr(native, "_native", stub)
    monkeypatch.setattr(native, "cuda_archs", lambda: ["90"])
    monkeypatch.setattr(native, "on_host", lambda device: False)
    monkeypatch.setattr(native, "current_stream", lambda device: 0)
    return launched


def test_calls(benchmark, no_launch):
    torch.set_num_threads(1)
    genome = packed_genome(random_text(200_000, seed=1))
    contig = torch.zeros(B, dtype=torch.int64)
    start_bp, orientation = torch.arange(B) * 3, torch.arange(B) % 4
    sampler = WindowSampler([genome], 6 * N_KMERS, seed=3)
    draw = BatchSampler([genome], sampler.tables, 3, N_KMERS)

    def times(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(CALLS):
                call()

        return run

    contenders = {
        "kmer_tokenize": lambda: kmer_tokenize(genome, contig, start_bp, N_KMERS, orientation),
        "gc_count": lambda: gc_count(genome, contig, start_bp, 6 * N_KMERS),
        "sample_batch": lambda: draw(5, B),
        "torch.empty": lambda: torch.empty((B, N_KMERS), dtype=torch.int32),
    }
    for call in contenders.values():
        call()
    assert no_launch == ["kmer_tokenize_cuda", "gc_count_cuda", "sample_batch_cuda"]
    runs = {name: times(call) for name, call in contenders.items()}
    best = contest(benchmark, "call_overhead", runs, dict.fromkeys(runs, CALLS), "call", "torch.empty")
    print({name: f"{seconds / CALLS * 1e6:.2f} us" for name, seconds in best.items()})
