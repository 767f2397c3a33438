"""A random packed genome of many megabytes, for the benchmarks."""

import numpy as np
import torch

from dnagpt_fast.packed import PackedGenome


def random_genome(packed_bytes: int, n_every: int = 0) -> PackedGenome:
    """One contig; with n_every, one unknown base in every n_every bases."""
    length_bp = 4 * packed_bytes
    start = np.arange(n_every // 2, length_bp, n_every) if n_every else np.empty(0, np.int64)
    packed = np.random.default_rng(0).integers(0, 256, packed_bytes, dtype=np.uint8)
    return PackedGenome(
        packed=torch.from_numpy(packed),
        byte_offset=torch.zeros(1, dtype=torch.int64),
        length_bp=torch.tensor([length_bp]),
        n_block_index=torch.tensor([0, len(start)]),
        n_block_start_bp=torch.from_numpy(start),
        n_block_end_bp=torch.from_numpy(start + 1),
    )
