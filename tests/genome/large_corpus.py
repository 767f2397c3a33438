"""python -m tests.genome.large_corpus TABLE: time and memory of opening a corpus and drawing from it, in a
new process.

Prints JSON: seconds to open each genome, packed bytes, and how much the resident memory grew, in bytes, from before the
genomes were opened to after a hundred batches were drawn and the held-out windows chosen.
"""

import json
import struct
import sys
import time
from pathlib import Path

import numpy as np

from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.pretrain.batches import BatchMaker, Template
from dnagpt_fast.pretrain.mix import GenomeMix
from dnagpt_fast.pretrain.settings import DataSettings
from dnagpt_fast.pretrain.validation import held_out_windows
from dnagpt_fast.vocab import Vocabulary

CONTIGS, CONTIG_BP = 6, 3_600_000_000  # 5.4 GB packed; the last contig starts after byte 2^32
PATCH_BP = 400_000  # known bases at the end of the last contig; the rest is holes in the file, which read T
PATCH_START = CONTIG_BP - PATCH_BP
N_BLOCKS = ((1_000_000, 1_000_500), (2**31, 2**31 + 7))
CONTIG_NAMES = [f"chr{c}" for c in range(CONTIGS)]


def patch(seed: int) -> np.ndarray:
    """Packed bases of the patch, uint8."""
    return np.random.default_rng(seed).integers(256, size=PATCH_BP // 4, dtype=np.uint8)


def write_sparse(path: Path, seed: int) -> None:
    """A .2bit of 21.6 Gbp, version 1, that takes a few hundred kB of disk."""
    record_head = struct.pack(
        "<II4III", CONTIG_BP, len(N_BLOCKS), *(b for b, _ in N_BLOCKS), *(e - b for b, e in N_BLOCKS), 0, 0
    )
    record_bytes = len(record_head) + CONTIG_BP // 4
    index_bytes = sum(1 + len(name) + 8 for name in CONTIG_NAMES)
    starts = [16 + index_bytes + c * record_bytes for c in range(CONTIGS)]
    with open(path, "wb") as file:
        file.write(struct.pack("<IIII", 0x1A412743, 1, CONTIGS, 0))
        for name, start in zip(CONTIG_NAMES, starts, strict=True):
            file.write(bytes([len(name)]) + name.encode() + struct.pack("<Q", start))
        for start in starts:
            file.seek(start)
            file.write(record_head)
        end = starts[-1] + record_bytes
        file.seek(end - PATCH_BP // 4)
        file.write(patch(seed).tobytes())
    assert path.stat().st_size == end


def resident() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


def main() -> None:
    data = DataSettings(genome_table=sys.argv[1])
    vocabulary = Vocabulary()
    template = Template.build(vocabulary)
    seconds = []
    before = resident()
    open_genome = Genome.open

    def timed(path):
        began = time.perf_counter()
        genome = open_genome(path)
        seconds.append(time.perf_counter() - began)
        return genome

    Genome.open = timed
    mix = GenomeMix.open(data)
    for genome in mix.genomes:
        genome.expect_random_reads()
    genomes = [genome.arrays for genome in mix.genomes]
    maker = BatchMaker(genomes, mix.species, 507, vocabulary, template)
    sampler = WindowSampler(genomes, maker.length_bp, seed=0, weights=mix.weights, held_out=mix.held_out)
    for batch in range(100):
        maker.sampled(sampler, 40 * batch, 40)
    held_out_windows(genomes, mix.held_out, maker.length_bp, sampler.max_n_bp, 1000)
    packed = sum(genome.packed.numel() for genome in genomes)
    answer = {"seconds": seconds, "packed_bytes": packed, "grown_bytes": resident() - before}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
