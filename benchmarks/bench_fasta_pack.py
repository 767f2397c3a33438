"""FASTA, plain and gzip, to packed bases and to a .2bit file, beside bare reads by pysam and needletail, and inflate.

pytest benchmarks/bench_fasta_pack.py
DNAGPT_BENCH_FASTA=<file.fa> pytest benchmarks/bench_fasta_pack.py       a real one in place of random bases
"""

import gzip
import importlib
import importlib.util
import os
import zlib
from pathlib import Path

import pysam
import torch

from benchmarks.contest import contest
from dnagpt_fast import Genome
from dnagpt_fast.genome.pack import pack_fasta
from dnagpt_fast.ops import compiled
from tests.ops.packed_genomes import random_text

LENGTH_BP = 32 << 20


def fasta(folder: Path) -> Path:
    if given := os.environ.get("DNAGPT_BENCH_FASTA"):
        return Path(given)
    letters = random_text(LENGTH_BP, seed=1, n_every=100_000)
    path = folder / "random.fa"
    lines = (letters[i : i + 60] for i in range(0, LENGTH_BP, 60))
    path.write_text(">random\n" + "\n".join(lines) + "\n")
    return path


def test_fasta_to_packed(benchmark, monkeypatch, tmp_path):
    torch.set_num_threads(1)
    path = fasta(tmp_path)
    zipped, twobit = tmp_path / "zipped.fa.gz", tmp_path / "packed.2bit"
    zipped.write_bytes(gzip.compress(path.read_bytes(), 6))

    def pysam_read(source: Path) -> int:
        with pysam.FastxFile(str(source)) as records:
            return sum(len(record.sequence) for record in records)

    def inflate() -> None:
        with gzip.open(zipped) as stream:
            while stream.read(4 << 20):
                pass

    def read(source: Path, isa: str) -> None:
        monkeypatch.setenv("DNAGPT_FAST_CPU_ISA", isa)
        Genome.open(source)

    def copy() -> None:
        with open(path, "rb") as stream:
            while stream.read(4 << 20):
                pass

    isas = compiled.machine_isas()
    with pysam.FastxFile(str(path)) as records:
        wanted = {record.name: record.sequence.upper() for record in records}
    for isa in isas:
        monkeypatch.setenv("DNAGPT_FAST_CPU_ISA", isa)
        genome = Genome.open(path)
        assert {name: genome.sequence(name) for name in genome.names} == wanted
    bases = pysam_read(path)
    contenders = {
        "FASTA to .2bit": lambda: pack_fasta([path], twobit),
        **{f"{isa} FASTA to packed": lambda isa=isa: read(path, isa) for isa in reversed(isas)},
        "gzip FASTA to packed": lambda: read(zipped, isas[-1]),
        "inflate": inflate,
        "read": copy,
        "pysam": lambda: pysam_read(path),
        "pysam, gzip": lambda: pysam_read(zipped),
    }
    if importlib.util.find_spec("needletail"):
        needletail = importlib.import_module("needletail")

        def needletail_read(source: Path) -> int:
            return sum(len(record.seq) for record in needletail.parse_fastx_file(str(source)))

        assert needletail_read(path) == needletail_read(zipped) == bases
        contenders["needletail"] = lambda: needletail_read(path)
        contenders["needletail, gzip"] = lambda: needletail_read(zipped)
    work = dict.fromkeys(contenders, 1e-9 * bases)
    op = f"fasta_pack (zlib {zlib.ZLIB_RUNTIME_VERSION})"
    monkeypatch.delenv("DNAGPT_FAST_CPU_ISA")
    contest(benchmark, op, contenders, work, "Gbp", against="pysam", rounds=3)
