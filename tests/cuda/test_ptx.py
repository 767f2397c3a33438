"""The PTX of the CUDA kernels, run on the CPU: accesses are checked, schedules shuffled, races detected."""

import math
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dnagpt_fast.genome.intervals import Intervals, WeightedPlaces
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.ops import gc_count, kmer_tokenize
from dnagpt_fast.ops.sample_batch import BatchSampler
from dnagpt_fast.vocab import Vocabulary
from tests.cuda.stand_in import FIELDS
from tests.cuda.test_stand_in import TOKEN
from tests.ops.packed_genomes import packed_genome, random_text
from tests.ptxrun import ptxrun

pytestmark = pytest.mark.ptx

CSRC = Path(__file__).parents[2] / "csrc"
SEEDS = (0, 1, 2)  # 0 runs warps in order, others at random
THREADS = 128
LETTER = {2: "t", 4: "i", 8: "l"}  # mangled names of the id types
GENOME_WORDS = "<PqPPPPPqq"


@pytest.fixture(scope="session")
def module(tmp_path_factory):
    """name of a .cu file -> its loaded PTX module."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    folder, loaded = tmp_path_factory.mktemp("ptx"), {}

    def load(name):
        if name not in loaded:
            target = folder / f"{name}.ptx"
            command = ["nvcc", "-ptx", "-std=c++17", "-O3", "-arch=sm_80", f"-I{CSRC}"]
            subprocess.run([*command, str(CSRC / "cuda" / f"{name}.cu"), "-o", str(target)], check=True)
            loaded[name] = ptxrun.Module(target.read_text())
        return loaded[name]

    return load


def kernel_of(module, pattern):
    (name,) = (name for name in module.kernels if re.search(pattern, name))
    return name


def read_only(array):
    return ptxrun.ReadOnly(np.ascontiguousarray(array))


def genome_struct(genome):
    packed, offset, length, index, start, end = (
        read_only(getattr(genome, field).numpy()) for field in FIELDS
    )
    counts = (genome.length_bp.numel(), genome.n_block_start_bp.numel())
    return ptxrun.Struct(
        GENOME_WORDS, packed, genome.packed.numel(), offset, length, index, start, end, *counts
    )


def windows_struct(contig, start_bp, orientation):
    rows = (read_only(np.array(row, np.int64)) for row in (contig, start_bp, orientation))
    return ptxrun.Struct("<PPPqq", *rows, 0, len(contig))


def cut(n_tokens, token_bytes):
    """cut_row of kmer_tokenize.cuh."""
    chunks = math.ceil(n_tokens * token_bytes / 16) + 1
    tiles = math.ceil(chunks / 192)
    return tiles, math.ceil(math.ceil(chunks / tiles) / 32) * 32


def cut_struct(n_tokens, token_bytes):
    return ptxrun.Struct("<qi4x", *cut(n_tokens, token_bytes))


def case(count, n_tokens, k, seed):
    texts = [random_text(n_tokens * k + 90, seed=seed + i, n_every=i * 40) for i in range(3)]
    genome = packed_genome(*texts)
    chance = np.random.default_rng(seed)
    contig = chance.integers(0, 3, count)
    return genome, contig, chance.integers(0, 91, count), chance.integers(0, 4, count)


@pytest.mark.parametrize("token_bytes", [2, 4, 8])
@pytest.mark.parametrize(
    ("count", "n_tokens", "k"), [(7, 61, 6), (3, 13, 5), (5, 510, 6), (2, 1601, 6), (3, 77, 1)]
)
def test_kmer_tokenize(module, count, n_tokens, k, token_bytes):
    genome, contig, start_bp, turn = case(count, n_tokens, k, seed=n_tokens)
    first_id = Vocabulary(k).first_id(k)
    loaded = module("kmer_tokenize")
    name = kernel_of(loaded, f"kmer_tokenize_kernelI{LETTER[token_bytes]}Li{6 if k == 6 else 0}E")
    dtype = TOKEN[token_bytes]
    wanted = kmer_tokenize(genome, contig, start_bp, n_tokens, turn, k=k, dtype=dtype[1]).numpy()
    for seed in SEEDS:
        tokens, refused = np.full((count, n_tokens), 0xA5, dtype[0]), np.zeros(6, np.int64)
        windows, view, pieces = (
            windows_struct(contig, start_bp, turn),
            genome_struct(genome),
            cut_struct(n_tokens, token_bytes),
        )
        arguments = [view, windows, n_tokens, k, first_id, pieces, tokens, refused]
        loaded.launch(name, (2,), (THREADS,), arguments, seed=seed, race=True)
        assert tokens.tobytes() == wanted.tobytes()
        assert not refused.any()


@pytest.mark.parametrize("parts", [1, 5])
@pytest.mark.parametrize("length", [1, 63, 3061, 20_011])
def test_gc_count(module, parts, length):
    genome, contig, start_bp, _ = case(4, -(-length // 6), 6, seed=length)
    length_bp = np.array([length, 0, length, length // 2])
    wanted = [count.numpy() for count in gc_count(genome, contig, start_bp, length_bp)]
    loaded = module("gc_count")
    for seed in SEEDS:
        gc, known, refused = (np.zeros(n, np.int64) for n in (4, 4, 6))
        windows = windows_struct(contig, start_bp, np.zeros(4))
        arguments = [genome_struct(genome), windows, read_only(length_bp), 0, parts, gc, known, refused]
        loaded.launch(kernel_of(loaded, "gc_count_kernel"), (3,), (THREADS,), arguments, seed=seed, race=True)
        assert (gc == wanted[0]).all()
        assert (known == wanted[1]).all()
        assert not refused.any()


def arena(module, genomes):
    """GenomeViews and all their arrays in one buffer, the first argument, at the addresses it will have."""
    base = ((module.info["nglobals"] + 1) << module.info["slot"]) + (1 << (module.info["slot"] - 1))
    views, body = [], bytearray()
    begin = len(genomes) * struct.calcsize(GENOME_WORDS.replace("P", "Q"))
    for genome in genomes:
        addresses = []
        for field in FIELDS:
            body += bytes(-len(body) % 16)
            addresses.append(base + begin + len(body))
            body += getattr(genome, field).numpy().tobytes()
        counts = (genome.length_bp.numel(), genome.n_block_start_bp.numel())
        values = (addresses[0], genome.packed.numel(), *addresses[1:], *counts)
        views.append(struct.pack(GENOME_WORDS.replace("P", "Q"), *values))
    return np.frombuffer(b"".join(views) + body, np.uint8).copy()


@pytest.mark.parametrize("token_bytes", [2, 8])
@pytest.mark.parametrize(("count", "n_tokens", "k"), [(5, 61, 6), (3, 37, 4)])
def test_sample_batch(module, count, n_tokens, k, token_bytes):
    genomes = [
        packed_genome(random_text(2000, seed=s, n_every=100), random_text(700, seed=s + 5)) for s in range(2)
    ]
    heavy = WeightedPlaces(Intervals(np.array([0]), np.array([900]), np.array([1300])), np.array([4.0]))
    sampler = WindowSampler(genomes, n_tokens * k, seed=11, weights=[2.0, 1.0], places=[[heavy], []])
    draw = BatchSampler(genomes, sampler.tables, 11, n_tokens, k=k, dtype=TOKEN[token_bytes][1])
    batch = draw(2**32 - 2, count)
    windows = (batch.windows.genome, batch.windows.contig, batch.windows.start_bp, batch.windows.orientation)
    wanted = [
        row.numpy() for row in (*windows, batch.kmers, batch.gc_fraction, batch.gc_known, batch.reversed)
    ]
    loaded = module("sample_batch")
    name = kernel_of(loaded, f"sample_batch_kernelI{LETTER[token_bytes]}Li{6 if k == 6 else 0}E")
    tables = sampler.tables
    fields = (
        "genome_threshold",
        "orientation_threshold",
        "interval_index",
        "rank_before",
        "contig",
        "start_bp",
        "ranks_per_start",
    )
    for seed in SEEDS:
        out, refused = [np.full_like(row, 1) for row in wanted], np.zeros(6, np.int64)
        arguments = [
            read_only(arena(loaded, genomes)),
            ptxrun.Struct("<PPPPPPPq", *(read_only(getattr(tables, field)) for field in fields), 2),
            *(11, 2**32 - 2, None, count, n_tokens, k, Vocabulary(k).first_id(k)),
            cut_struct(n_tokens, token_bytes),
            ptxrun.Struct("<PPPPPPPP", *out),
            refused,
        ]
        loaded.launch(name, (3,), (THREADS,), arguments, seed=seed, race=True)
        assert [row.tobytes() for row in out] == [row.tobytes() for row in wanted]
        assert not refused.any()


def test_a_window_off_its_contig_reads_nothing(module):
    genome = packed_genome("ACGT" * 15)
    loaded = module("kmer_tokenize")
    tokens, refused = np.full((2, 10), 7, np.int32), np.zeros(6, np.int64)
    arguments = [
        genome_struct(genome),
        windows_struct([0, 0], [0, 1], [0, 0]),
        10,
        6,
        34,
        cut_struct(10, 4),
        tokens,
        refused,
    ]
    loaded.launch(kernel_of(loaded, "kmer_tokenize_kernelIiLi6E"), (1,), (THREADS,), arguments, race=True)
    assert (tokens[1] == 0).all()
    assert refused.tolist() == [2, 0, 0, 1, 0, 1]
