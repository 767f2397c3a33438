"""gc_count of 64 MB packed beside reading the same bytes, and py2bit's bases() where it is installed.

pytest benchmarks/bench_gc_count.py
"""

import importlib
import importlib.util
import os

import numpy as np
import torch

from benchmarks.big_genome import random_genome
from benchmarks.contest import contest
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.pack import pack_fasta
from dnagpt_fast.ops import compiled, dispatch, gc_count
from tests.ops.packed_genomes import random_text

PACKED_BYTES = 64 << 20
LENGTH_BP = 4 * PACKED_BYTES
PEER_BASES = 8 << 20


def test_whole_and_windows(benchmark, monkeypatch, tmp_path):
    torch.set_num_threads(1)
    genome = random_genome(PACKED_BYTES)
    words = genome.packed.numpy().view(np.uint64)
    wanted = sum(int(part.sum()) for part in np.array_split(np.bitwise_count(words & 0x5555555555555555), 64))
    starts = torch.arange(0, LENGTH_BP - 1, 100_000)
    contig, length_bp = torch.zeros_like(starts), torch.clamp(LENGTH_BP - starts, max=100_000)

    one, all_bp = torch.tensor([0]), torch.tensor([LENGTH_BP])

    def with_isa(isa, run):
        def forced():
            os.environ["DNAGPT_FAST_CPU_ISA"] = isa  # monkeypatch, which takes it away, would be timed too
            return run()

        return forced

    contenders, work = {}, {}
    for isa in reversed(compiled.machine_isas()):
        monkeypatch.setenv("DNAGPT_FAST_CPU_ISA", isa)
        gc, known = gc_count(genome, [0], [0], [LENGTH_BP])
        assert (gc.item(), known.item()) == (wanted, LENGTH_BP)
        assert int(gc_count(genome, contig, starts, length_bp)[0].sum()) == wanted
        contenders[f"{isa} whole"] = with_isa(isa, lambda: gc_count(genome, one, one, all_bp))
        contenders[f"{isa} windows of 100 kb"] = with_isa(
            isa, lambda: gc_count(genome, contig, starts, length_bp)
        )
    with dispatch.using(gc_count="reference"):
        gc = gc_count(genome, [0], [3], [5000])[0]
    assert torch.equal(gc, gc_count(genome, [0], [3], [5000])[0])
    # the fastest of three ways to read all bytes
    contenders["read"] = lambda: np.bitwise_or.reduce(words)
    contenders["read, sum"] = lambda: words.sum()
    contenders["read, max"] = lambda: genome.packed.numpy().max()
    work = dict.fromkeys(contenders, 1e-9 * LENGTH_BP)
    if importlib.util.find_spec("py2bit"):
        fasta = tmp_path / "peer.fa"
        fasta.write_text(">c\n" + random_text(PEER_BASES, seed=1) + "\n")
        pack_fasta([fasta], tmp_path / "peer.2bit")
        peer = importlib.import_module("py2bit").open(str(tmp_path / "peer.2bit"))
        gc, _ = gc_count(Genome.open(tmp_path / "peer.2bit"), [0], [0], [PEER_BASES])
        counts = peer.bases("c", fraction=False)
        assert counts["G"] + counts["C"] == gc.item()
        contenders["py2bit.bases"] = lambda: peer.bases("c", fraction=False)
        work["py2bit.bases"] = 1e-9 * PEER_BASES
    monkeypatch.delenv("DNAGPT_FAST_CPU_ISA")
    contest(benchmark, "gc_count", contenders, work, "Gbp", against="read", rounds=15)
