"""kmer_tokenize of one long window (64 MB packed) beside memcpy and memset of the same id bytes, and a numpy table.

pytest benchmarks/bench_kmer_tokenize.py
"""

import os

import numpy as np
import pytest
import torch

from benchmarks.big_genome import random_genome
from benchmarks.contest import contest
from dnagpt_fast.ops import compiled, dispatch, kmer_tokenize
from dnagpt_fast.ops.kmer_tokenize import TOKEN_BYTES
from dnagpt_fast.packed import PackedGenome
from dnagpt_fast.vocab import Vocabulary

PACKED_BYTES = 64 << 20
N_TOKENS = (4 * PACKED_BYTES - 8) // 6
START_BP = 1
ORIENTATIONS = {"forward": 0, "reversed": 1, "complement": 2, "reverse complement": 3}
PEER_BASES = 6 << 20  # for the peers that are a hundred times slower


def check(genome, dtype) -> None:
    """Compares both ends with the reference. It visits every N block of a contig, so it gets only the
    ends."""
    length_bp = 6000
    for first_bp in (0, 4 * PACKED_BYTES - length_bp):
        start, end = genome.n_block_start_bp - first_bp, genome.n_block_end_bp - first_bp
        inside = (start >= 0) & (end <= length_bp)
        cut = PackedGenome(
            packed=genome.packed[first_bp // 4 :][: length_bp // 4],
            byte_offset=genome.byte_offset,
            length_bp=torch.tensor([length_bp]),
            n_block_index=torch.tensor([0, int(inside.sum())]),
            n_block_start_bp=start[inside],
            n_block_end_bp=end[inside],
        )
        for orientation in ORIENTATIONS.values():
            tokens = kmer_tokenize(genome, [0], [first_bp + 1], 999, orientation, dtype=dtype)
            with dispatch.using(kmer_tokenize="reference"):
                wanted = kmer_tokenize(cut, [0], [1], 999, orientation, dtype=torch.int64)
            assert torch.equal(tokens.to(torch.int64), wanted)


def numpy_table(genome) -> np.ndarray:
    """The usual numpy implementation: unpack with a table, number the six-mers by one matrix product."""
    digits = np.array([4, 3, 1, 2], np.int64)[(np.arange(256)[:, None] >> np.array([6, 4, 2, 0])) & 3]
    bases = digits[genome.packed.numpy()[: PEER_BASES // 4]].reshape(-1, 6)
    return bases @ (5 ** np.arange(5, -1, -1)) + Vocabulary().first_id(6)


@pytest.mark.parametrize("dtype", TOKEN_BYTES, ids=str)
def test_long_window(benchmark, monkeypatch, dtype):
    """Into ready memory (`out=`) beside memcpy, into new memory beside numpy's copy into new memory."""
    torch.set_num_threads(1)
    genome, dense = random_genome(PACKED_BYTES), random_genome(PACKED_BYTES, n_every=50)
    contig, start_bp = torch.tensor([0]), torch.tensor([START_BP])
    tokens = torch.zeros((1, N_TOKENS), dtype=dtype)
    source = torch.ones(tokens.nbytes, dtype=torch.uint8).numpy()
    target = np.zeros_like(source)

    def ours(genome, isa, orientation, out=tokens):
        def run():
            os.environ["DNAGPT_FAST_CPU_ISA"] = isa  # monkeypatch's own bookkeeping would be timed too
            return kmer_tokenize(genome, contig, start_bp, N_TOKENS, orientation, dtype=dtype, out=out)

        return run

    contenders, best = {}, compiled.machine_isas()[-1]
    for isa in reversed(compiled.machine_isas()):
        monkeypatch.setenv("DNAGPT_FAST_CPU_ISA", isa)
        check(genome, dtype)
        check(dense, dtype)
        for name, orientation in ORIENTATIONS.items():
            if isa == best or orientation in (0, 3):
                contenders[f"{isa} {name}"] = ours(genome, isa, orientation)
        for orientation in (0, 3):
            contenders[f"{isa} N every 50{', reverse complement' * (orientation == 3)}"] = ours(
                dense, isa, orientation
            )
    contenders[f"{best} new memory"] = ours(genome, best, 0, out=None)
    contenders["memcpy"] = lambda: np.copyto(target, source)
    contenders["memset"] = lambda: target.fill(1)
    contenders["copy into new memory"] = lambda: source.copy()
    work = dict.fromkeys(contenders, 6e-9 * N_TOKENS)
    if dtype == torch.int64:
        wanted = kmer_tokenize(genome, [0], [0], PEER_BASES // 6, dtype=dtype)[0]
        assert np.array_equal(numpy_table(genome), wanted.numpy())
        contenders["numpy table"] = lambda: numpy_table(genome)
        work["numpy table"] = 1e-9 * PEER_BASES
    monkeypatch.delenv("DNAGPT_FAST_CPU_ISA")
    seconds = contest(benchmark, f"kmer_tokenize {dtype}", contenders, work, "Gbp", against="memcpy")
    monkeypatch.delenv("DNAGPT_FAST_CPU_ISA")
    ratio = seconds[f"{best} new memory"] / seconds["copy into new memory"]
    print(f"new memory: {ratio:.2f} of the time of numpy's copy into new memory")


def test_random_windows(benchmark):
    """64 windows of 510 six-mers at random places of 64 MB, through the public function."""
    torch.set_num_threads(1)
    genome = random_genome(PACKED_BYTES)
    check(genome, torch.uint16)
    contig = torch.zeros(64, dtype=torch.int64)
    starts = torch.randint(0, 4 * PACKED_BYTES - 3060, (200, 64))

    def windows():
        for start_bp in starts:
            kmer_tokenize(genome, contig, start_bp, 510, 3, dtype=torch.uint16)

    ids = np.ones((64, 510), np.uint16)

    def copies():
        for _ in starts:
            ids.copy()

    contenders = {"windows of 510": windows, "memcpy of the ids": copies}
    work = dict.fromkeys(contenders, 200 * 64 * 510e-6)
    contest(
        benchmark, "kmer_tokenize windows", contenders, work, "million tokens", against="memcpy of the ids"
    )
