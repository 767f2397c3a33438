"""The CUDA kernels as C++ under ASan and UBSan, compared bit for bit with the CPU kernels."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dnagpt_fast.genome.intervals import Intervals, WeightedPlaces
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.ops import gc_count, kmer_tokenize
from dnagpt_fast.ops.sample_batch import BatchSampler
from tests.cuda.stand_in import gc_case, sample_case, tokenize_case
from tests.ops.packed_genomes import packed_genome, random_text

TOKEN = {2: (np.uint16, torch.uint16), 4: (np.int32, torch.int32), 8: (np.int64, torch.int64)}
OK = np.zeros(6, np.int64).tobytes()  # no RefusedWindow (csrc/cuda/kernels_cuda.h)


def ids(genome, contig, start_bp, orientation, n_tokens, k, dynamic, token_bytes) -> bytes:
    arguments = (genome, contig, start_bp, n_tokens, orientation)
    return kmer_tokenize(*arguments, k=k, dynamic=dynamic, dtype=TOKEN[token_bytes][1]).numpy().tobytes()


@pytest.mark.parametrize("k", range(1, 7))
@pytest.mark.parametrize("token_bytes", [2, 4, 8])
def test_every_length_phase_and_orientation(stand_in, k, token_bytes):
    # rows of 0..18 ids end at every position of a 16-byte chunk, and adjacent rows begin at every position;
    # 200 and 400 ids take more than one round of a warp; starts 0..4 are all phases of a byte
    genome = packed_genome("ACG", random_text(2500, seed=k, n_every=30))
    cases, wanted = [], []
    for n_tokens in [*range(19), 200, 400]:
        start_bp = [*range(5)] * 4
        orientation = np.repeat(np.arange(4), 5).tolist()
        contig = [1] * 20
        dynamic = n_tokens % 2 == 0
        shift, packed_shift = n_tokens % (16 // token_bytes), 5 * n_tokens % 16
        arguments = (genome, contig, start_bp, orientation, n_tokens, k, dynamic, token_bytes)
        cases.append(tokenize_case(*arguments, shift=shift, packed_shift=packed_shift))
        wanted += [OK, ids(*arguments)]
    assert stand_in(cases, seed=k) == wanted


def test_an_n_at_every_place(stand_in):
    # 60 bases = 10 six-mers; runs of 1..8 bases cross one or two k-mer boundaries
    plain = random_text(60, seed=1)
    texts = [plain[:i] + "N" * run + plain[i + run :] for run in range(1, 9) for i in range(60 - run + 1)]
    genome = packed_genome(*texts)
    contig, start_bp = [*range(len(texts))], [0] * len(texts)
    cases = [(genome, contig, start_bp, turn, 10, 6, True, 2 + 2 * (turn & 1)) for turn in range(4)]
    wanted = [part for case in cases for part in (OK, ids(*case))]
    assert stand_in([tokenize_case(*case) for case in cases]) == wanted


def test_a_long_window_in_many_tiles(stand_in):
    # 5,003 ids of 8 bytes are 27 tiles of at most 192 chunks; N lie in some of them
    text = random_text(30_100, seed=3)
    genome = packed_genome(text[:9000] + "N" * 5000 + text[14000:20001] + "N" + text[20002:])
    case = (genome, [0, 0], [3, 70], [0, 3], 5003, 6, True, 8)
    assert stand_in([tokenize_case(*case)]) == [OK, ids(*case)]


@given(data=st.data())
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_genome(stand_in, data):
    texts = data.draw(st.lists(st.text("ACGTN", max_size=300), min_size=1, max_size=4))
    genome = packed_genome(*texts, gap=data.draw(st.integers(0, 20)))
    k = data.draw(st.integers(1, 6))
    n_tokens = data.draw(st.integers(0, max(map(len, texts)) // k))
    fitting = [i for i, text in enumerate(texts) if len(text) >= n_tokens * k]
    contig = data.draw(st.lists(st.sampled_from(fitting), max_size=5))
    start_bp = [data.draw(st.integers(0, len(texts[c]) - n_tokens * k)) for c in contig]
    orientation = [data.draw(st.integers(0, 3)) for _ in contig]
    token_bytes = data.draw(st.sampled_from([2, 4, 8]))
    case = (genome, contig, start_bp, orientation, n_tokens, k, data.draw(st.booleans()), token_bytes)
    length_bp = [data.draw(st.integers(0, len(texts[c]) - s)) for c, s in zip(contig, start_bp, strict=True)]
    packed_shift, seed = data.draw(st.integers(0, 15)), data.draw(st.integers(0, 99))
    counts = gc_count(genome, contig, start_bp, length_bp)
    got = stand_in(
        [
            tokenize_case(
                *case, packed_shift=packed_shift, shift=data.draw(st.integers(0, 16 // token_bytes - 1))
            ),
            gc_case(genome, contig, start_bp, length_bp, packed_shift=packed_shift),
        ],
        seed,
    )
    assert got == [OK, ids(*case), OK, *(count.numpy().tobytes() for count in counts)]


@pytest.mark.parametrize("count", [1, 3, 64, 130])
def test_gc_of_few_and_many_windows(stand_in, count):
    # one window is cut into 64 parts; 64 or more windows (for 64 warps) are not cut
    genome = packed_genome("AC", random_text(20_000, seed=5, n_every=300))
    chance = np.random.default_rng(count)
    start_bp = chance.integers(0, 20_000, count)
    length_bp = np.array([chance.integers(0, 20_001 - s) for s in start_bp])
    start_bp[0], length_bp[0] = 0, 20_000
    contig = np.ones(count, np.int64)
    wanted = [part.numpy().tobytes() for part in gc_count(genome, contig, start_bp, length_bp)]
    for packed_shift in (0, 7):
        case = gc_case(genome, contig, start_bp, length_bp, packed_shift=packed_shift)
        assert stand_in([case], seed=count) == [OK, *wanted]


def test_a_window_that_leaves_its_contig_is_reported_and_reads_nothing(stand_in):
    genome = packed_genome("A" * 60, "C" * 100)
    for window, code in [
        ((2, 0, 0), 1),
        ((-1, 0, 0), 1),
        ((1, 41, 0), 2),
        ((1, -1, 0), 2),
        ((1, 2**62, 0), 2),
        ((1, -(2**63), 0), 2),
        ((1, 0, 4), 3),
        ((1, 0, -1), 3),
    ]:
        contig, start_bp, turn = ([good, bad] for good, bad in zip((1, 40, 0), window, strict=True))
        refused, tokens = stand_in([tokenize_case(genome, contig, start_bp, turn, 10, 6, True, 4)])
        assert np.frombuffer(refused, np.int64).tolist() == [code, 0, 0, 1, window[0], window[1]]
        rows = np.frombuffer(tokens, np.int32).reshape(2, 10)
        assert rows[0].tobytes() == ids(genome, [1], [40], 0, 10, 6, True, 4)
        assert (rows[1] == 0).all()
        if code != 3:
            refused, gc, known = stand_in([gc_case(genome, contig, start_bp, [60, 60])])
            assert np.frombuffer(refused, np.int64).tolist() == [code, 1, 0, 1, window[0], window[1]]
            assert np.frombuffer(gc, np.int64).tolist() == [60, 0]
            assert np.frombuffer(known, np.int64).tolist() == [60, 0]
            # one length for both windows instead of one each
            assert stand_in([gc_case(genome, contig, start_bp, [60])]) == [refused, gc, known]


def test_a_sample_that_leaves_its_contig_names_its_genome(stand_in):
    genomes = [packed_genome(random_text(900, seed=s)) for s in range(3)]
    tables = WindowSampler(genomes, 60, seed=5).tables
    start_bp = tables.start_bp.copy()
    start_bp[2] += 900
    bad = dataclasses.replace(tables, start_bp=start_bp)
    refused, genome, contig, start_bp, _, tokens, _, known, _ = stand_in(
        [sample_case(genomes, bad, 5, 0, 20, 10, 6, True, 4)]
    )
    genome, contig, start_bp = (np.frombuffer(row, np.int64) for row in (genome, contig, start_bp))
    assert set(genome) == {0, 1, 2}
    code, op, g, window, c, at = np.frombuffer(refused, np.int64).tolist()
    assert (code, op, g) == (2, 2, 2)
    assert (g, c, at) == (genome[window], contig[window], start_bp[window])
    rows = np.frombuffer(tokens, np.int32).reshape(20, 10)
    assert (rows[genome == 2] == 0).all()
    assert (rows[genome != 2] != 0).all()
    assert (np.frombuffer(known, bool) == (genome != 2)).all()


def moved(genome, **changes):
    return type(genome)(**{**{f: getattr(genome, f) for f in genome.__dataclass_fields__}, **changes})


def test_offsets_that_32_bits_do_not_hold(stand_in):
    """Bases 5 GB into the buffer: once as a contig that begins there, once as the end of a contig of 20 G bases."""
    text = random_text(3000, seed=9, n_every=100)
    genome = packed_genome(text, gap=0)
    lead = 5 << 30
    ids_wanted = ids(genome, [0], [11], 3, 300, 6, True, 2)
    counts = [count.numpy().tobytes() for count in gc_count(genome, [0], [11], [2000])]
    behind = moved(genome, byte_offset=genome.byte_offset + lead)
    inside = moved(
        genome,
        length_bp=genome.length_bp + 4 * lead,
        n_block_start_bp=genome.n_block_start_bp + 4 * lead,
        n_block_end_bp=genome.n_block_end_bp + 4 * lead,
    )
    for far, start_bp in ((behind, 11), (inside, 11 + 4 * lead)):
        cases = [
            tokenize_case(far, [0], [start_bp], 3, 300, 6, True, 2, lead=lead),
            gc_case(far, [0], [start_bp], [2000], lead=lead),
        ]
        assert stand_in(cases) == [OK, ids_wanted, OK, *counts]


@pytest.mark.parametrize("k", [6, 4])
@pytest.mark.parametrize("token_bytes", [2, 4, 8])
def test_sampled_batches(stand_in, k, token_bytes):
    """Three genomes, held-out ranges, weighted places, N: samples, ids, GC and labels are those of the CPU kernels."""
    genomes = [
        packed_genome(random_text(3000, seed=s, n_every=200), random_text(800, seed=s + 9)) for s in range(3)
    ]
    n_tokens = 37
    ranges = Intervals(np.array([0]), np.array([500]), np.array([900]))
    empty = Intervals(*(np.zeros(0, np.int64) for _ in range(3)))
    heavy = WeightedPlaces(Intervals(np.array([0]), np.array([1000]), np.array([1600])), np.array([2.5]))
    sampler = WindowSampler(
        genomes,
        n_tokens * k,
        seed=2**40 + 7,
        weights=[3.0, 1.0, 1.0],
        held_out=[ranges, empty, empty],
        places=[[heavy], [], []],
    )
    for count, first_index in ((1, 0), (33, 2**32 - 5), (130, 2**64 - 130)):
        draw = BatchSampler(
            genomes,
            sampler.tables,
            sampler.seed,
            n_tokens,
            k=k,
            dynamic=count == 33,
            dtype=TOKEN[token_bytes][1],
        )
        batch = draw(first_index, count)
        windows = (
            batch.windows.genome,
            batch.windows.contig,
            batch.windows.start_bp,
            batch.windows.orientation,
        )
        rows = (*windows, batch.kmers, batch.gc_fraction, batch.gc_known, batch.reversed)
        case = (
            genomes,
            sampler.tables,
            sampler.seed,
            first_index,
            count,
            n_tokens,
            k,
            count == 33,
            token_bytes,
        )
        wanted = [OK, *(row.numpy().tobytes() for row in rows)]
        assert stand_in([sample_case(*case)], seed=count) == wanted
        assert stand_in([sample_case(*case, by_address=True)]) == wanted


def test_bases_after_the_buffer_are_read_as_t(stand_in):
    """A view whose last byte is cut off: the kernel must not read it, which AddressSanitizer would see."""
    genome = packed_genome("ACGTACGTACGT", gap=0)
    short = moved(genome, packed=genome.packed[:2])
    _, tokens = stand_in([tokenize_case(short, [0], [0], 0, 2, 6, True, 4)])
    text = "ACGTACGTTTTT"  # 00 is T
    assert tokens == ids(packed_genome(text), [0], [0], 0, 2, 6, True, 4)
