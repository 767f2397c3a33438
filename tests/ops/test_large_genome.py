"""Coordinates beyond 2^32: a contig of 5 Gbp in a sparse file, of which only a few kilobytes are written or read."""

import numpy as np
import pytest
import torch

from dnagpt_fast.ops import gc_count, gc_track, kmer_tokenize, sequence_text
from dnagpt_fast.packed import PackedGenome
from dnagpt_fast.vocab import Vocabulary
from tests.ops.packed_genomes import INSTRUCTION_SETS, oriented, packed_genome, random_text

LENGTH_BP = 5_000_000_000
BYTE_OFFSET = 17
# both after base 2^32; the second one ends at the last base of the contig and the file
PLACES = (2**32 + 12, LENGTH_BP - 4000)


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "sparse"
    n_start, n_end = [], []
    with open(path, "wb") as file:
        file.truncate(BYTE_OFFSET + LENGTH_BP // 4)
        for place, text in zip(PLACES, texts(), strict=True):
            small = packed_genome(text, gap=0)
            file.seek(BYTE_OFFSET + place // 4)
            file.write(small.packed.numpy().tobytes())
            n_start += (small.n_block_start_bp + place).tolist()
            n_end += (small.n_block_end_bp + place).tolist()
    return PackedGenome(
        packed=torch.from_numpy(np.memmap(path, np.uint8, "r+")),
        byte_offset=torch.tensor([BYTE_OFFSET]),
        length_bp=torch.tensor([LENGTH_BP]),
        n_block_index=torch.tensor([0, len(n_start)]),
        n_block_start_bp=torch.tensor(n_start),
        n_block_end_bp=torch.tensor(n_end),
    )


def texts() -> list[str]:
    return [random_text(4000, seed=seed, n_every=200) for seed in range(2)]


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_windows_far_out(genome, monkeypatch, instruction_set):
    monkeypatch.setenv("DNAGPT_FAST_CPU_ISA", instruction_set)
    kmer_id = Vocabulary().kmer_id
    for place, text in zip(PLACES, texts(), strict=True):
        start_bp = [place + 1, place + 4000 - 3900]
        for orientation in range(4):
            for row, start in zip(
                kmer_tokenize(genome, [0, 0], start_bp, 650, orientation), start_bp, strict=True
            ):
                window = oriented(text[start - place : start - place + 3900], orientation)
                assert row.tolist() == [kmer_id(window[i : i + 6]) for i in range(0, 3900, 6)]
        gc, known = gc_count(genome, [0], [place], [4000])
        assert gc.item() == text.count("G") + text.count("C")
        assert known.item() == 4000 - text.count("N")
        assert sequence_text(genome, 0, place, place + 4000).tobytes().decode() == text


def test_a_track_to_the_far_end(genome):
    gc, known = gc_track(genome, 0, 4000, 1_000_000_000)
    assert len(gc) == 5
    # the rest of the file is empty: T
    assert gc.tolist() == [0] * 5
    assert known.tolist() == [4000] * 5
