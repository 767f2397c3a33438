"""Small packed genomes made from text, for the tests of the kernels; packed with plain numpy, without our kernels."""

import numpy as np
import torch

from dnagpt_fast.ops.compiled import machine_isas
from dnagpt_fast.packed import PackedGenome

# of the machine under the tests
INSTRUCTION_SETS = machine_isas()

CODE = {"T": 0, "C": 1, "A": 2, "G": 3}


def packed_genome(*contigs: str, junk: int = 0b11100100, gap: int = 3) -> PackedGenome:
    """Contigs over ACGTN, one after another with `gap` random bytes before each; random codes under N blocks."""
    packed, offsets, index, starts, ends = bytearray(), [], [0], [], []
    for text in contigs:
        packed += bytes([junk]) * gap
        offsets.append(len(packed))
        codes = [CODE[base] if base in CODE else (i * 7 + junk) & 3 for i, base in enumerate(text)]
        for i in range(0, len(codes), 4):
            four = codes[i : i + 4] + [junk & 3] * 4
            packed.append(four[0] << 6 | four[1] << 4 | four[2] << 2 | four[3])
        is_n = np.array([False, *(base == "N" for base in text), False])
        edges = np.flatnonzero(is_n[1:] != is_n[:-1])
        starts += edges[::2].tolist()
        ends += edges[1::2].tolist()
        index.append(len(starts))
    return PackedGenome(
        packed=torch.tensor(list(packed), dtype=torch.uint8),
        byte_offset=torch.tensor(offsets, dtype=torch.int64),
        length_bp=torch.tensor([len(text) for text in contigs], dtype=torch.int64),
        n_block_index=torch.tensor(index, dtype=torch.int64),
        n_block_start_bp=torch.tensor(starts, dtype=torch.int64),
        n_block_end_bp=torch.tensor(ends, dtype=torch.int64),
    )


def random_text(length: int, seed: int, n_every: int = 0) -> str:
    """Random bases; with `n_every`, runs of 1 to 9 N at about this distance."""
    generator = np.random.default_rng(seed)
    text = np.array(list("ACGT"))[generator.integers(0, 4, length)]
    position = 0
    while n_every:
        position += int(generator.integers(1, 2 * n_every))
        if position >= length:
            break
        run = int(generator.integers(1, 10))
        text[position : position + run] = "N"
        position += run
    return "".join(text)


COMPLEMENT = str.maketrans("ACGT", "TGCA")


def oriented(text: str, orientation: int) -> str:
    if orientation & 2:
        text = text.translate(COMPLEMENT)
    return text[::-1] if orientation & 1 else text
