"""Tokenize, GC count and sampling on a card: the same bits as the CPU kernels, on any stream and in a CUDA graph."""

import numpy as np
import pytest
import torch

from benchmarks.gpu_genome import fields, rows, same
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.ops import gc_count, kmer_tokenize, synchronize
from dnagpt_fast.ops.sample_batch import BatchSampler
from dnagpt_fast.packed import PackedGenome
from tests.ops.packed_genomes import packed_genome, random_text

pytestmark = pytest.mark.gpu

DTYPES = [torch.uint16, torch.int32, torch.int64]


def random_windows(texts, length_bp, count, seed):
    chance = np.random.default_rng(seed)
    contig = chance.integers(0, len(texts), count)
    start_bp = [int(chance.integers(0, len(texts[c]) - length_bp + 1)) for c in contig]
    return (torch.tensor(x) for x in (contig, np.array(start_bp), chance.integers(0, 4, count)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", range(1, 7))
def test_tokenize(device, k, dtype):
    # 1 and 7 ids are less than a 16-byte store, 8 one, 510 a training window, 2,003 several tiles
    texts = [random_text(2003 * k + 50, seed=s, n_every=s * 70) for s in range(3)]
    genome = packed_genome(*texts)
    on_card = genome.to(device)
    for n_tokens in (0, 1, 7, 8, 510, 2003):
        contig, start_bp, turn = random_windows(texts, n_tokens * k, 65, seed=n_tokens)
        wanted = kmer_tokenize(genome, contig, start_bp, n_tokens, turn, k=k, dtype=dtype)
        for taken in ((contig, start_bp, turn), tuple(x.to(device) for x in (contig, start_bp, turn))):
            same(kmer_tokenize(on_card, *taken[:2], n_tokens, taken[2], k=k, dtype=dtype), wanted)
    synchronize(on_card)


@pytest.mark.parametrize("count", [1, 3, 500])
def test_gc_count(device, count):
    texts = [random_text(200_000, seed=1, n_every=5000), random_text(300_000, seed=2)]
    genome = packed_genome(*texts)
    contig, start_bp, _ = random_windows(texts, 0, count, seed=count)
    length_bp = torch.tensor([(len(texts[c]) - s) // 2 for c, s in zip(contig, start_bp, strict=True)])
    wanted = gc_count(genome, contig, start_bp, length_bp)
    on_card = genome.to(device)
    same(gc_count(on_card, *(x.to(device) for x in (contig, start_bp, length_bp))), wanted)
    synchronize(on_card)


def samplers(device, n_kmers=37):
    genomes = [packed_genome(random_text(5000, seed=s, n_every=300)) for s in range(3)]
    tables = WindowSampler(genomes, 6 * n_kmers, seed=2**40 + 7, weights=[3.0, 1.0, 1.0]).tables
    return [
        BatchSampler([genome.to(where) for genome in genomes], tables, 2**40 + 7, n_kmers)
        for where in ("cpu", device)
    ]


@pytest.mark.parametrize(("first", "count"), [(0, 1), (2**32 - 5, 33), (2**64 - 400, 400)])
def test_sampled_batches(device, first, count):
    here, there = samplers(device)
    same(fields(there(first, count)), fields(here(first, count)))
    there.synchronize()


def test_the_rows_of_the_report(device):
    def once(call):
        call()
        return 1.0

    made = list(rows(device, once, packed_bytes=1 << 20, batches=(64,)))
    assert {row["op"] for row in made} == {"copy", "kmer_tokenize", "gc_count", "sample_batch"}


def test_a_captured_graph_draws_new_samples_at_each_replay(cuda):
    here, there = samplers(cuda)
    first = torch.zeros(1, dtype=torch.int64, device=cuda)
    there(first, 64)  # a first call, whose allocations are not captured
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        batch = there(first, 64)
    for index in (0, 64, 10**6):
        first.fill_(index)
        graph.replay()
        same(fields(batch), fields(here(index, 64)))


def test_work_goes_to_the_stream_that_is_current(cuda):
    genome = packed_genome(random_text(100_000, seed=1))
    on_card, stream = genome.to(cuda), torch.cuda.Stream()
    wanted = kmer_tokenize(genome, [0] * 64, [*range(64)], 5000)
    rows = torch.zeros(64, dtype=torch.int64, device=cuda), torch.arange(64, device=cuda)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(
            400_000_000
        )  # a fifth of a second; what follows waits for this if it is on this stream
        tokens = kmer_tokenize(on_card, *rows, 5000)
        event = stream.record_event()
    assert not event.query()
    event.synchronize()
    same(tokens, wanted)


def test_a_bad_window_on_the_device_is_reported_and_harms_nothing(cuda):
    genome = packed_genome(random_text(1000, seed=1))
    on_card = genome.to(cuda)
    rows = torch.zeros(3, dtype=torch.int64, device=cuda), torch.tensor([0, 990, 7], device=cuda)
    tokens = kmer_tokenize(on_card, *rows, 20)
    with pytest.raises(
        IndexError, match=r"an earlier kmer_tokenize refused window 1 .*start_bp 990.*leaves its contig"
    ):
        synchronize(on_card)
    assert (tokens[1] == 0).all()
    same(kmer_tokenize(on_card, [0, 0], [0, 7], 20), tokens[[0, 2]])
    synchronize(on_card)


def test_a_genome_at_any_address(device):
    """Bases that begin at each of 16 bytes, and windows up to the genome's very end."""
    text = random_text(4000, seed=3, n_every=90)
    genome = packed_genome(text)
    wanted = kmer_tokenize(genome, [0, 0], [0, 4000 - 3060], 510, [0, 3])
    for shift in range(16):
        block = torch.empty(len(genome.packed) + 16, dtype=torch.uint8, device=device)
        moved = block[shift : shift + len(genome.packed)]
        moved.copy_(genome.packed)
        others = (x.to(device) for x in list(vars(genome).values())[1:6])
        same(kmer_tokenize(PackedGenome(moved, *others), [0, 0], [0, 4000 - 3060], 510, [0, 3]), wanted)
