"""The native sampler against its definition: the numpy sampler followed by the tokenizer and GC ops."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dnagpt_fast.genome.intervals import Intervals, WeightedPlaces
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.ops import BatchSampler, dispatch
from dnagpt_fast.pretrain.batches import BatchMaker, Template
from dnagpt_fast.vocab import Vocabulary
from tests.ops.packed_genomes import INSTRUCTION_SETS, packed_genome, random_text

BATCH_FIELDS = ("token_ids", "targets", "row_kind", "gc_target", "gc_mask")
WINDOW_FIELDS = ("genome", "contig", "start_bp", "orientation")


def setting(
    seed: int, n_genomes: int, n_kmers: int, k: int, dynamic: bool
) -> tuple[BatchMaker, WindowSampler]:
    genomes = [
        packed_genome(random_text(700 + 40 * g, seed=g, n_every=25), random_text(333, seed=50 + g))
        for g in range(n_genomes)
    ]
    vocabulary = Vocabulary(k, dynamic)
    make = BatchMaker(
        genomes, list(range(21, 21 + n_genomes)), n_kmers, vocabulary, Template.build(vocabulary)
    )
    weights = [1.0 + g for g in range(n_genomes)]
    # the first contig of the first genome has a range with three times the weight, and one with weight 0
    at = np.array([[0, 50, 120], [0, 300, 330]])
    places = WeightedPlaces(Intervals(at[:, 0], at[:, 1], at[:, 2]), np.array([3.0, 0.0]))
    return make, WindowSampler(
        genomes,
        make.length_bp,
        seed=seed,
        weights=weights,
        places=[[places], *[()] * (n_genomes - 1)],
        max_n_share=0.4,
    )


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@given(
    seed=st.integers(0, 2**64 - 1),
    first=st.one_of(st.integers(0, 2**64 - 40), st.just(2**32 - 3), st.just(2**64 - 33)),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 6), st.booleans()),
)
@settings(max_examples=40)
def test_bit_identical_to_the_definition(instruction_set, seed, first, shape):
    make, sampler = setting(seed, *shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DNAGPT_FAST_CPU_ISA", instruction_set)
        native = make.sampled(sampler, first, 33)
    with dispatch.using(sample_batch="reference", kmer_tokenize="reference", gc_count="reference"):
        reference = make.sampled(sampler, first, 33)
    for field in BATCH_FIELDS:
        assert torch.equal(getattr(native, field), getattr(reference, field)), field
    for field in WINDOW_FIELDS:
        assert torch.equal(getattr(native.windows, field), getattr(reference.windows, field)), field
    assert native.gc_position == reference.gc_position


def test_threads_change_nothing():
    # 100 windows of 99 kb are more than twice the minimum of 4 Mb per thread
    genome = packed_genome(random_text(200_000, seed=9, n_every=3000))
    sampler = WindowSampler([genome], 99_000, seed=1, max_n_share=0.5)
    draw = BatchSampler([genome], sampler.tables, 1, 16_500)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = draw(0, 100)
        torch.set_num_threads(3)
        three = draw(0, 100)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one.kmers.to(torch.int32), three.kmers.to(torch.int32))
    assert torch.equal(one.gc_fraction, three.gc_fraction)
    assert torch.equal(one.windows.start_bp, three.windows.start_bp)


def test_bad_tables_and_indices():
    _, sampler = setting(0, 2, 5, 6, True)
    genomes = [packed_genome("ACGT" * 200), packed_genome("ACGT" * 200)]
    with pytest.raises(ValueError, match="wanted indices 0"):
        BatchSampler(genomes, sampler.tables, 0, 5)(2**64 - 1, 2)
    for change, words in (
        ({"start_bp": sampler.tables.start_bp.astype(np.int32)}, "SamplerTables.start_bp is int32"),
        ({"interval_index": sampler.tables.interval_index[:-1]}, "SamplerTables.interval_index"),
        ({"interval_index": np.array([0, 0, len(sampler.tables.contig)])}, "an interval for each genome"),
    ):
        with pytest.raises(ValueError, match=words):
            BatchSampler(genomes, dataclasses.replace(sampler.tables, **change), 0, 5)
    with pytest.raises(ValueError, match=r"dtype torch\.int8"):
        BatchSampler(genomes, sampler.tables, 0, 5, dtype=torch.int8)
    # tables of a longer genome than the one given
    with pytest.raises(IndexError, match=r"leave contig|the genome has contigs"):
        BatchSampler([packed_genome("ACGT" * 8)] * 2, sampler.tables, 0, 5)(0, 100)


def test_a_sampler_of_other_windows():
    make, _ = setting(0, 1, 5, 6, True)
    other = WindowSampler(make.genomes, 36, seed=0)
    with pytest.raises(ValueError, match="windows of 36 bp, a batch takes 30"):
        make.sampled(other, 0, 1)
