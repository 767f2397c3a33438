"""Which share of each k-mer of a window is soft-masked: table look-ups on the device where the windows are drawn."""

from collections.abc import Sequence

import numpy as np
import torch

from dnagpt_fast.batch import Windows
from dnagpt_fast.genome.genome import Genome


class SoftMask:
    """The soft-masked runs of several genomes on one axis, on which every contig has its stretch.

    Counting the masked bases before a position is one binary search, so that the share of a k-mer is the difference of
    two counts. Nothing is read back to the host.
    """

    def __init__(self, genomes: Sequence[Genome], device: torch.device | str = "cpu") -> None:
        lengths = np.concatenate([np.asarray(genome.lengths) for genome in genomes])
        offset = np.concatenate([[0], np.cumsum(lengths)])
        blocks = [genome.mask_blocks(name) for genome in genomes for name in genome.names]
        shift = np.repeat(offset[:-1], [len(each) for each in blocks])
        runs = np.concatenate([*blocks, np.zeros((0, 2), dtype=np.int64)]) + shift[:, None]
        before = np.concatenate([[0], np.cumsum(runs[:, 1] - runs[:, 0])])
        first = np.concatenate([[0], np.cumsum([len(genome.names) for genome in genomes])])[:-1]
        arrays = (offset, first, runs[:, 0].copy(), runs[:, 1].copy(), before)
        self._offset, self._first_contig, self._start, self._end, self._before = (
            torch.from_numpy(np.asarray(array, dtype=np.int64)).to(device) for array in arrays
        )

    def before(self, position: torch.Tensor) -> torch.Tensor:
        """Masked bases left of each position on the common axis; int64, of any shape."""
        block = torch.searchsorted(self._start, position, right=True)
        if not len(self._end):
            return torch.zeros_like(position)
        inside = (self._end[(block - 1).clamp(min=0)] - position).clamp(min=0)
        return self._before[block] - torch.where(block > 0, inside, 0)

    def share(self, windows: Windows, n_kmers: int, k: int) -> torch.Tensor:
        """float32 (B, n_kmers), 0..1: the masked share of each k-mer, in the order in which the window is read."""
        device = self._offset.device
        genome, contig, start_bp, orientation = (
            getattr(windows, name).to(device) for name in ("genome", "contig", "start_bp", "orientation")
        )
        start = self._offset[self._first_contig[genome] + contig] + start_bp
        edges = start[:, None] + k * torch.arange(n_kmers + 1, device=device)
        share = self.before(edges).diff(dim=1).float() / k
        return torch.where((orientation & 1).bool()[:, None], share.flip(1), share)
