"""Outputs of ops: the caller's `out` is checked and filled; large new ones ask for huge pages and are freed."""

import gc
import platform
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.big_genome import random_genome
from dnagpt_fast.genome.sampler import SamplerTables
from dnagpt_fast.ops import BatchSampler, TextEncoder, compiled, dispatch, gc_count, gc_track, kmer_tokenize
from dnagpt_fast.ops.output import LARGE_BYTES, new_output
from dnagpt_fast.vocab import RESERVED, UNKNOWN_ID, Vocabulary
from tests.ops.packed_genomes import packed_genome, random_text

TEXT = random_text(3_000, seed=5, n_every=40)
GENOME = packed_genome(TEXT, random_text(700, seed=6))


def sampler() -> BatchSampler:
    tables = SamplerTables(
        np.zeros(0, np.uint64),
        np.array([2**30, 2**31, 3 << 30], np.uint64),
        np.array([0, 1]),
        np.array([0, 2_000]),
        np.array([0]),
        np.array([0]),
        np.array([1]),
    )
    return BatchSampler([GENOME], tables, seed=3, n_kmers=20)


def encoder() -> TextEncoder:
    return TextEncoder(Vocabulary(), [name.strip("<>") for name in RESERVED], UNKNOWN_ID)


def flat(result) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    if hasattr(result, "windows"):
        return [*vars(result.windows).values(), *result[1:]]
    return [tensor for tensor in result if isinstance(tensor, torch.Tensor)]


# name -> call(out or None), and how the result is passed as `out`
CALLS = {
    "kmer_tokenize uint16": lambda out: kmer_tokenize(
        GENOME, [0, 1], [5, 9], 50, [3, 0], dtype=torch.uint16, out=out
    ),
    "kmer_tokenize int64": lambda out: kmer_tokenize(GENOME, [0], [7], 99, dtype=torch.int64, out=out),
    "gc_count": lambda out: gc_count(GENOME, [0, 1, 0], [0, 3, 9], [100, 200, 300], out=out),
    "gc_track": lambda out: gc_track(GENOME, 0, 100, 30, out=out),
    "sample_batch": lambda out: sampler()(11, 6, out=out),
    "text_encode": lambda out: encoder()(f"<R>{TEXT}", out=out),
}


def as_out(result):
    return result[0] if isinstance(result, tuple) and isinstance(result[1], int) else result


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("implementation", ["native", "reference"])
def test_out_is_filled_and_returned(name, implementation):
    ops = ("kmer_tokenize", "gc_count", "text_encode")
    with dispatch.using(**dict.fromkeys(ops, implementation)):
        wanted, out = CALLS[name](None), as_out(CALLS[name](None))
        for tensor in flat(out):
            tensor.view(torch.uint8).fill_(0x5A if tensor.dtype != torch.bool else 0)
        addresses = [tensor.data_ptr() for tensor in flat(out)]
        got = CALLS[name](out)
    assert [tensor.data_ptr() for tensor in flat(got)] == addresses
    for ours, theirs in zip(flat(got), flat(wanted), strict=True):
        assert ours.equal(theirs)


SPOILED = {
    "another shape": lambda tensor: tensor.new_empty((*tensor.shape[:-1], tensor.shape[-1] + 1)),
    "another dtype": lambda tensor: tensor.to(torch.float64),
    "another device": lambda tensor: tensor.to("meta"),
    "gaps": lambda tensor: tensor.new_empty((*tensor.shape, 2))[..., 0],
    "no tensor": lambda tensor: tensor.tolist(),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("what", SPOILED)
def test_an_out_that_does_not_fit_is_refused(name, what):
    out = as_out(CALLS[name](None))
    if isinstance(out, torch.Tensor):
        spoiled = SPOILED[what](out)
    elif hasattr(out, "windows"):
        spoiled = out._replace(kmers=SPOILED[what](out.kmers))
    else:
        spoiled = (out[0], SPOILED[what](out[1]))
    # a dtype that kmer_tokenize cannot write is refused as such
    with pytest.raises(ValueError, match=r"wanted (a tensor|torch\.|.*contiguous)"):
        CALLS[name](spoiled)


@pytest.mark.parametrize("field", ["genome", "contig", "start_bp", "orientation"])
def test_every_row_of_a_batch_is_checked(field):
    batch = sampler()(0, 4)
    windows = type(batch.windows)(**{**vars(batch.windows), field: torch.empty(3, dtype=torch.int64)})
    with pytest.raises(ValueError, match=f"out.windows.{field}"):
        sampler()(0, 4, out=batch._replace(windows=windows))


def test_a_pair_is_wanted():
    with pytest.raises(ValueError, match="wanted a pair"):
        gc_count(GENOME, [0], [0], 10, out=torch.empty(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="wanted a SampledBatch"):
        sampler()(0, 2, out=torch.empty(2))


def test_out_says_the_dtype_and_an_empty_one_is_taken():
    for dtype in (torch.uint16, torch.int32, torch.int64):
        out = torch.empty(1, 3, dtype=dtype)
        assert kmer_tokenize(GENOME, [0], [0], 3, out=out) is out
    assert kmer_tokenize(GENOME, [], [], 3, out=torch.empty(0, 3, dtype=torch.int32)).shape == (0, 3)


def test_under_compile_out_is_filled():
    out, wanted = torch.empty(1, 9, dtype=torch.int64), kmer_tokenize(GENOME, [0], [4], 9, dtype=torch.int64)
    rows = torch.tensor([0]), torch.tensor([4])
    compiled = torch.compile(
        lambda contig, start: kmer_tokenize(GENOME, contig, start, 9, dtype=torch.int64, out=out),
        fullgraph=True,
        backend="eager",
    )
    assert compiled(*rows).equal(wanted)
    assert out.equal(wanted)


def test_the_count_of_a_text():
    for text in ("", "ACGTAC", "<R>ACGTACG", "ACGé<M>"):
        assert encoder().count(text) == len(encoder()(text)[0])
    with pytest.raises(TypeError, match="wanted str"):
        encoder().count(b"ACGT")


def page_flags(address: int) -> list[str]:
    """The kernel's flags of the mapping that holds an address; "hg": huge pages are asked for (proc(5), VmFlags)."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError(f"no mapping holds {address:#x}")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    platform.system() != "Linux" or not HUGE.exists() or "[never]" in HUGE.read_text(),
    reason="the system has no transparent huge pages",
)
def test_large_outputs_ask_for_huge_pages():
    made = new_output((32 << 20,), torch.uint8, torch.device("cpu"))
    # The request is what we can promise: a machine whose free memory is scattered may have no huge page left to give.
    assert "hg" in page_flags(made.data_ptr() + (8 << 20))
    plain = torch.empty(32 << 20, dtype=torch.uint8)
    assert "hg" not in page_flags(plain.data_ptr() + (8 << 20))
    small = new_output((LARGE_BYTES - 1,), torch.uint8, torch.device("cpu"))
    assert small.numel() == LARGE_BYTES - 1


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_large_outputs_are_given_back():
    genome = packed_genome(random_text(600_000, seed=1))
    rows = torch.zeros(64, dtype=torch.int64)

    def call() -> None:  # 51 MB
        assert kmer_tokenize(genome, rows, rows, 100_000, dtype=torch.int64).shape == (64, 100_000)

    call()
    gc.collect()
    before = resident_bytes()
    for _ in range(10):
        call()
    assert resident_bytes() - before < 20 << 20


@pytest.mark.parametrize("orientation", [0, 3])
def test_large_ids_are_the_same_in_new_and_in_given_memory(orientation, monkeypatch):
    """From 16 MiB on, ids in given memory are written with other stores than those in new memory."""
    n_tokens = (17 << 20) // 2
    genome = random_genome(6 * n_tokens // 4 + 8, n_every=100_000)
    for isa in compiled.machine_isas():
        monkeypatch.setenv("DNAGPT_FAST_CPU_ISA", isa)
        made = kmer_tokenize(genome, [0], [3], n_tokens, orientation, dtype=torch.uint16)
        given = torch.zeros_like(made)
        assert kmer_tokenize(genome, [0], [3], n_tokens, orientation, out=given) is given
        assert torch.equal(made.view(torch.int16), given.view(torch.int16))
        some = kmer_tokenize(genome, [0], [3 + 6 * (n_tokens - 500)], 500, orientation, dtype=torch.uint16)
        part = made[0, -500:] if orientation == 0 else made[0, :500]
        assert torch.equal(part, some[0])
