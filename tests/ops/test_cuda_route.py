"""How the ops call the CUDA kernels, with stubs instead of kernels; and what torch.compile sees of the ops."""

import dataclasses
import gc
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.ops import dispatch, gc_count, kmer_tokenize, native, synchronize
from dnagpt_fast.ops.sample_batch import BatchSampler
from tests.ops.packed_genomes import packed_genome, random_text

STREAM = 77


class StubView:
    def __init__(self, host, device, refused, *addresses):
        self.host, self.device, self.refused, self.addresses = host, device, refused, addresses

    def view_bytes(self):
        return bytes(72)


class Stub:
    """The extension with CUDA functions that record their arguments and call the CPU kernels."""

    CudaGenome = StubView

    def __init__(self, real):
        self.real, self.calls = real, []

    def __getattr__(self, name):
        return getattr(self.real, name)

    def kmer_tokenize_cuda(self, view, *arguments):
        self.calls.append(("kmer_tokenize", view, arguments))
        self.real.kmer_tokenize(view.host, *arguments[:-1], 1, False)

    def gc_count_cuda(self, view, *arguments):
        self.calls.append(("gc_count", view, arguments))
        self.real.gc_count(view.host, *arguments[:-1], 1)

    def sample_batch_cuda(self, view, genomes, tables, seed, index, index_at, *rest):
        self.calls.append(("sample_batch", view, (genomes, tables, seed, index, index_at, *rest)))
        self.real.sample_batch([view.host], tables, seed, index, *rest[:-2], 1)


@pytest.fixture
def stub(monkeypatch):
    stub = Stub(native._native)
    monkeypatch.setattr(native, "_native", stub)
    monkeypatch.setattr(native, "cuda_archs", lambda: ["80", "90"])
    monkeypatch.setattr(native, "on_host", lambda device: False)
    monkeypatch.setattr(native, "current_stream", lambda device: STREAM)
    return stub


def test_the_cuda_functions_get_the_arrays_and_the_stream(stub):
    genome = packed_genome("ACG", random_text(500, seed=1, n_every=30))
    tokens = kmer_tokenize(genome, [1, 1], [0, 7], 20, [0, 3])
    counts = gc_count(genome, [1, 1], [0, 7], 100)
    assert [call[0] for call in stub.calls] == ["kmer_tokenize", "gc_count"]
    for _, view, arguments in stub.calls:
        assert view.addresses == tuple(array.data_ptr() for array in native.six_arrays(genome))
        assert arguments[-1] == STREAM
    assert stub.calls[0][1] is stub.calls[1][1]  # made once per genome
    with dispatch.using(kmer_tokenize="reference", gc_count="reference"):
        assert torch.equal(tokens, kmer_tokenize(genome, [1, 1], [0, 7], 20, [0, 3]))
        assert all(map(torch.equal, counts, gc_count(genome, [1, 1], [0, 7], 100)))


@pytest.mark.parametrize("bad", [([2], [0]), ([1], [490]), ([1], [-1])])
def test_a_bad_window_on_the_host_is_an_error_before_the_launch(stub, bad):
    genome = packed_genome("ACG", random_text(500, seed=1))
    with pytest.raises(IndexError, match="window 0"):
        kmer_tokenize(genome, *bad, 20)
    with pytest.raises(IndexError, match="window 0"):
        gc_count(genome, *bad, 20)
    assert stub.calls == []


def test_a_window_the_device_refused_is_raised_at_the_next_call_once(stub):
    genome = packed_genome(random_text(500, seed=1))
    kmer_tokenize(genome, [0], [0], 20)
    native.cuda_genome(genome).refused.record.copy_(torch.tensor([2, 0, 0, 5, 0, 499]))
    message = r"an earlier kmer_tokenize refused window 5 \(contig 0, start_bp 499\).*it leaves its contig"
    with pytest.raises(IndexError, match=message):
        gc_count(genome, [0], [0], 20)
    gc_count(genome, [0], [0], 20)


def test_synchronize_waits_and_raises_what_a_kernel_found(stub, monkeypatch):
    genome, waited = packed_genome(random_text(500, seed=1)), []
    gc_count(genome, [0], [0], 20)
    record = native.cuda_genome(genome).refused.record

    def wait(device):
        waited.append(device)
        record.copy_(torch.tensor([1, 1, 0, 3, 9, 0]))

    monkeypatch.setattr(native, "wait_for", wait)
    with pytest.raises(
        IndexError, match=r"an earlier gc_count refused window 3 \(contig 9, .*not in the genome"
    ):
        synchronize(genome)
    assert waited == [genome.device]
    monkeypatch.setattr(native, "wait_for", waited.append)
    synchronize(genome)
    assert len(waited) == 2


def test_on_the_cpu_there_is_nothing_to_wait_for(monkeypatch):
    monkeypatch.setattr(native, "wait_for", lambda device: pytest.fail("waited"))
    synchronize(packed_genome("ACGT"))


def test_an_incomplete_record_is_left_for_the_next_call():
    refused = native.RefusedWindow(torch.device("cpu"))
    refused.record[0] = -1
    refused.raise_if_any()
    refused.record.copy_(torch.tensor([3, 0, 0, 1, 2, 3]))
    with pytest.raises(IndexError, match=r"window 1 .*its orientation is not 0\.\.3"):
        refused.raise_if_any()


def test_a_record_outlives_its_genome(stub):
    """A kernel that is still queued may write to it."""
    genome = packed_genome(random_text(500, seed=1))
    kmer_tokenize(genome, [0], [0], 20)
    record = weakref.ref(native.cuda_genome(genome).refused.record)
    del genome
    gc.collect()
    assert record() is not None


def test_a_bad_sample_is_reported_with_its_own_genome(stub, monkeypatch):
    genomes = [packed_genome(random_text(900, seed=s)) for s in (2, 3)]
    draw = BatchSampler(genomes, WindowSampler(genomes, 60, seed=3).tables, 3, 10)
    monkeypatch.setattr(native, "wait_for", lambda device: None)
    draw.synchronize()
    draw._refused.record.copy_(torch.tensor([2, 2, 1, 4, 0, 890]))
    # other ops on the first genome do not report it
    kmer_tokenize(genomes[0], [0], [0], 20)
    with pytest.raises(
        IndexError, match=r"an earlier sample_batch refused window 4 \(genome 1, contig 0, start_bp 890\)"
    ):
        draw.synchronize()


def test_sampled_batches_use_the_cuda_function(stub):
    genome = packed_genome(random_text(900, seed=2))
    sampler = WindowSampler([genome], 60, seed=3)
    drawn = BatchSampler([genome], sampler.tables, 3, 10)(5, 4)
    ((_, _, arguments),) = stub.calls
    assert arguments[2:6] == (3, 5, 0, 4)
    assert arguments[-1] == STREAM
    windows = sampler.sample(5, 4)
    assert torch.equal(drawn.windows.start_bp, windows.start_bp)


def test_a_build_without_cuda_says_how_to_fix_it(monkeypatch):
    genome = packed_genome(random_text(100, seed=1))
    monkeypatch.setattr(native, "on_host", lambda device: False)
    monkeypatch.setattr(native, "cuda_archs", list)
    with pytest.raises(
        RuntimeError, match="built for the CPU only; rebuild it with DNAGPT_FAST_CUDA=1 pip install"
    ):
        kmer_tokenize(genome, [0], [0], 10)


def test_windows_on_another_device_are_refused():
    genome = packed_genome(random_text(100, seed=1))
    with pytest.raises(ValueError, match="contig is on meta, the genome on cpu"):
        kmer_tokenize(genome, torch.zeros(1, dtype=torch.int64, device="meta"), [0], 10)


def test_windows_that_are_not_contiguous_are_made_contiguous(stub):
    genome = packed_genome(random_text(500, seed=1))
    pairs = torch.tensor([[0, 7], [0, 30], [0, 100]])
    strided = kmer_tokenize(genome, pairs[:, 0], pairs[:, 1], 20)
    assert torch.equal(strided, kmer_tokenize(genome, [0, 0, 0], [7, 30, 100], 20))
    both = gc_count(genome, pairs[:, 0], pairs[:, 1], pairs[:, 1])
    assert all(map(torch.equal, both, gc_count(genome, [0, 0, 0], [7, 30, 100], [7, 30, 100])))


@pytest.mark.parametrize("op", ["kmer_tokenize", "gc_count"])
def test_a_genome_that_is_not_contiguous_or_on_two_devices_is_refused(stub, op):
    genome = packed_genome(random_text(500, seed=1))
    call = {"kmer_tokenize": kmer_tokenize, "gc_count": gc_count}[op]
    every_other = genome.packed.repeat_interleave(2)[::2]
    with pytest.raises(
        ValueError, match=r"packed is .*not contiguous: wanted one contiguous row of torch.uint8"
    ):
        call(dataclasses.replace(genome, packed=every_other), [0], [0], 10)
    with pytest.raises(ValueError, match="length_bp is on meta, packed on cpu"):
        call(dataclasses.replace(genome, length_bp=genome.length_bp.to("meta")), [0], [0], 10)
    assert stub.calls == []


def test_a_negative_length_is_refused_before_the_launch(stub):
    with pytest.raises(ValueError, match="length -1 bp, wanted 0 or more"):
        gc_count(packed_genome("ACGTACGT"), [0], [0], -1)
    assert stub.calls == []


def test_a_sampler_keeps_its_genomes(stub):
    """The device holds addresses of their memory, so it must live as long as the sampler."""
    genomes = [packed_genome(random_text(900, seed=s)) for s in (2, 3)]
    draw = BatchSampler(genomes, WindowSampler(genomes, 60, seed=3).tables, 3, 10)
    packed = [weakref.ref(genome.packed) for genome in genomes]
    del genomes
    gc.collect()
    assert all(bases() is not None for bases in packed)
    del draw
    stub.calls.clear()
    gc.collect()
    assert all(bases() is None for bases in packed)


def test_a_sampler_refuses_genomes_on_different_devices():
    genomes = [packed_genome(random_text(900, seed=s)) for s in (2, 3)]
    tables = WindowSampler(genomes, 60, seed=3).tables
    elsewhere = dataclasses.replace(genomes[1], packed=genomes[1].packed.to("meta"))
    with pytest.raises(ValueError, match=r"genomes on \['cpu', 'meta'\]: wanted one device"):
        BatchSampler([genomes[0], elsewhere], tables, 3, 10)


class Seen(TorchDispatchMode):
    """Names of the torch ops that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_a_call_only_allocates_and_launches(stub):
    """So a CUDA graph can capture it: no copy to the host, no read of a value, no wait."""
    genome = packed_genome(random_text(900, seed=2))
    draw = BatchSampler([genome], WindowSampler([genome], 60, seed=3).tables, 3, 10)
    rows = torch.zeros(3, dtype=torch.int64), torch.tensor([0, 5, 9])
    kmer_tokenize(genome, *rows, 20)
    with Seen() as seen:
        kmer_tokenize(genome, *rows, 20, rows[0])
        gc_count(genome, *rows, 60)
        gc_count(genome, *rows, rows[1])
        draw(7, 3)
    assert seen.names <= {"empty", "empty_like", "new_empty"}
    assert len(stub.calls) == 5


def six(genome):
    return native.six_arrays(genome)


def test_the_registered_ops_pass_opcheck():
    genome = packed_genome(random_text(400, seed=4, n_every=50))
    rows = (torch.zeros(3, dtype=torch.int64), torch.tensor([0, 5, 9]), torch.tensor([0, 1, 3]))
    torch.library.opcheck(
        torch.ops.dnagpt_fast.kmer_tokenize.default, (*six(genome), *rows, 12, 6, True, torch.int32)
    )
    torch.library.opcheck(torch.ops.dnagpt_fast.gc_count.default, (*six(genome), *rows))


def test_one_graph_under_torch_compile():
    genome = packed_genome(random_text(400, seed=4, n_every=50))

    def tokens_and_gc(contig, start_bp):
        ids = kmer_tokenize(genome, contig, start_bp, 12, 3, dtype=torch.int64)
        gc, known = gc_count(genome, contig, start_bp, 72)
        return ids + 1, gc / known

    rows = (torch.zeros(3, dtype=torch.int64), torch.tensor([0, 5, 9]))
    compiled = torch.compile(tokens_and_gc, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(compiled(*rows), tokens_and_gc(*rows), strict=True):
        assert torch.equal(got, wanted)


def test_a_freed_genome_leaves_the_cache():
    genome = packed_genome(random_text(400, seed=4))
    arrays = six(genome)
    first = native.genome_of(*arrays)
    assert native.genome_of(*arrays) is first
    before = len(native._genomes)
    del genome, arrays, first
    assert len(native._genomes) == before - 1
