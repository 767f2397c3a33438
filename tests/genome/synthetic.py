"""Packed genomes made from letters, for tests without files."""

import numpy as np
import torch

from dnagpt_fast.packed import PackedGenome

CODE = {"T": 0, "C": 1, "A": 2, "G": 3, "N": 0}


def packed_genome(contigs: list[str]) -> PackedGenome:
    """Upper-case contigs over ACGTN, each starting at a new byte."""
    packed, offset, blocks, index = [], [], [], [0]
    for letters in contigs:
        offset.append(len(packed))
        for first in range(0, len(letters), 4):
            four = letters[first : first + 4].ljust(4, "T")
            packed.append(sum(CODE[base] << shift for base, shift in zip(four, (6, 4, 2, 0), strict=True)))
        unknown = np.array([base == "N" for base in letters] + [False])
        edges = np.flatnonzero(np.diff(np.concatenate([[False], unknown]).astype(int)))
        blocks += list(zip(edges[::2], edges[1::2], strict=True))
        index.append(len(blocks))
    columns = np.array(blocks, dtype=np.int64).reshape(-1, 2)
    return PackedGenome(
        packed=torch.tensor(packed, dtype=torch.uint8),
        byte_offset=torch.tensor(offset, dtype=torch.int64),
        length_bp=torch.tensor([len(letters) for letters in contigs], dtype=torch.int64),
        n_block_index=torch.tensor(index, dtype=torch.int64),
        n_block_start_bp=torch.from_numpy(columns[:, 0].copy()),
        n_block_end_bp=torch.from_numpy(columns[:, 1].copy()),
    )


def random_letters(rng: np.random.Generator, length: int, n_runs: int = 0, longest_run: int = 1) -> str:
    letters = rng.choice(list("ACGT"), length)
    for _ in range(n_runs):
        start = rng.integers(0, max(length, 1))
        letters[start : start + rng.integers(1, longest_run + 1)] = "N"
    return "".join(letters)
