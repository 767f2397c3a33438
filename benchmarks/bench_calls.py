"""The cost of calling an op with very little work: one short window or sample, compared with one torch.empty.

pytest benchmarks/bench_calls.py
"""

import torch

from benchmarks.big_genome import random_genome
from benchmarks.contest import contest
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.ops import BatchSampler, dispatch, gc_count, kmer_tokenize

N_KMERS, CALLS = 10, 1000


def test_calls(benchmark):
    torch.set_num_threads(1)
    genome = random_genome(1 << 20)
    sampler = WindowSampler([genome], 6 * N_KMERS, seed=7)
    draw = BatchSampler([genome], sampler.tables, sampler.seed, N_KMERS)
    contig, start_bp = torch.tensor([0]), torch.tensor([5])
    orientation, length_bp = torch.tensor([3]), torch.tensor([60])
    ops = {
        "kmer_tokenize": lambda: kmer_tokenize(genome, contig, start_bp, N_KMERS),
        "kmer_tokenize, orientations": lambda: kmer_tokenize(genome, contig, start_bp, N_KMERS, orientation),
        "gc_count": lambda: gc_count(genome, contig, start_bp, length_bp),
        "gc_count, one length": lambda: gc_count(genome, contig, start_bp, 60),
        "sample_batch": lambda: draw(3, 1),
    }
    with dispatch.using(kmer_tokenize="reference", gc_count="reference"):
        tokens, tokens_of_sample, (gc, known) = (
            ops["kmer_tokenize"](),
            kmer_tokenize(genome, *_window(draw(3, 1).windows), dtype=torch.uint16),
            ops["gc_count"](),
        )
    assert torch.equal(ops["kmer_tokenize"](), tokens)
    assert torch.equal(draw(3, 1).kmers, tokens_of_sample)
    assert [x.item() for x in ops["gc_count"]()] == [gc.item(), known.item()]

    def repeated(call):
        def calls():
            for _ in range(CALLS):
                call()

        return calls

    ops["torch.empty"] = lambda: torch.empty((1, N_KMERS), dtype=torch.int32)
    contenders = {name: repeated(call) for name, call in ops.items()}
    work = dict.fromkeys(contenders, 1e-6 * CALLS)
    best = contest(benchmark, "calls", contenders, work, "million calls", against="torch.empty", rounds=30)
    for name, seconds in best.items():
        print(f"{name}: {seconds / CALLS * 1e6:.2f} us per call")


def _window(windows):
    return windows.contig, windows.start_bp, N_KMERS, windows.orientation
