"""Samples to batches, 64 windows of 510 six-mers: a BatchSampler beside the numpy sampler followed by the ops.

pytest benchmarks/bench_sampler.py
"""

import numpy as np
import torch

from benchmarks.big_genome import random_genome
from benchmarks.contest import contest
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.ops import BatchSampler, dispatch
from dnagpt_fast.pretrain.batches import BatchMaker, Template
from dnagpt_fast.vocab import Vocabulary

BATCH, N_KMERS, CALLS = 64, 510, 100
H100_TOKENS = 0.8e6  # tokens a second that one H100 could train, the yardstick


def test_batches(benchmark):
    torch.set_num_threads(1)
    genomes = [random_genome(64 << 20), random_genome(16 << 20, n_every=100_000)]
    vocabulary = Vocabulary()
    make = BatchMaker(genomes, [21, 27], N_KMERS, vocabulary, Template.build(vocabulary))
    sampler = WindowSampler(genomes, make.length_bp, seed=7)
    draw = BatchSampler(genomes, sampler.tables, sampler.seed, N_KMERS)
    batch = make.sampled(sampler, 10**9, BATCH)
    with dispatch.using(sample_batch="reference"):
        reference = make.sampled(sampler, 10**9, BATCH)
    assert torch.equal(batch.token_ids, reference.token_ids)
    assert torch.equal(batch.gc_target, reference.gc_target)
    ids = np.ones((BATCH, N_KMERS), np.uint16)

    def repeated(run):
        def runs():
            for call in range(CALLS):
                run(call * BATCH)

        return runs

    def by_ops(first):
        with dispatch.using(sample_batch="reference"):
            make.sampled(sampler, first, BATCH)

    contenders = {
        "BatchSampler, uint16": repeated(lambda first: draw(first, BATCH)),
        "whole training batch": repeated(lambda first: make.sampled(sampler, first, BATCH)),
        "numpy sampler and ops": repeated(by_ops),
        "memcpy of the ids": repeated(lambda _: ids.copy()),
    }
    work = dict.fromkeys(contenders, 1e-6 * CALLS * BATCH * N_KMERS)
    best = contest(
        benchmark, "sample_batch", contenders, work, "million tokens", against="numpy sampler and ops"
    )
    rate = CALLS * BATCH * N_KMERS / best["BatchSampler, uint16"]
    print(f"BatchSampler: {rate / H100_TOKENS:.0f} times the {H100_TOKENS:,.0f} tokens/s of an H100")
