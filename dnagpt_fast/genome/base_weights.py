"""The weights of a window's k-mers in the loss, from weighted places of their genome, computed on one
device."""

from collections.abc import Sequence

import numpy as np
import torch

from dnagpt_fast.batch import Windows
from dnagpt_fast.genome.intervals import WeightedPlaces
from dnagpt_fast.packed import PackedGenome


class BaseWeights:
    """The weighted places of several genomes, with all contigs concatenated on one axis.

    A base has the weight of its place, or 1 outside all places. A binary search gives the sum of (weight - 1)
    of all bases before a position, so the mean of a k-mer is a difference of two sums, and exactly 1 outside
    all places. Nothing is copied back to the host.
    """

    def __init__(
        self,
        genomes: Sequence[PackedGenome],
        places: Sequence[WeightedPlaces],
        device: torch.device | str = "cpu",
    ) -> None:
        """places: one entry per genome, which may be empty."""
        lengths = [genome.length_bp.cpu().numpy() for genome in genomes]
        offset = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        first = np.concatenate([[0], np.cumsum([len(of_genome) for of_genome in lengths])])[:-1]
        contig = np.concatenate([f + each.intervals.contig for f, each in zip(first, places, strict=True)])
        start = offset[contig] + np.concatenate([each.intervals.start_bp for each in places])
        end = offset[contig] + np.concatenate([each.intervals.end_bp for each in places])
        excess = np.concatenate([each.weight for each in places]) - 1.0
        before = np.concatenate([[0.0], np.cumsum((end - start) * excess)])
        self._offset, self._first_contig, self._start, self._end = (
            torch.from_numpy(np.asarray(array, dtype=np.int64)).to(device)
            for array in (offset, first, start, end)
        )
        self._excess, self._before = (torch.from_numpy(array).to(device) for array in (excess, before))

    def _excess_before(self, position: torch.Tensor) -> torch.Tensor:
        """Sum of (weight - 1) of the bases before each position on the common axis; float64, of any shape."""
        if not len(self._end):
            return torch.zeros_like(position, dtype=torch.float64)
        place = torch.searchsorted(self._start, position, right=True)
        last = (place - 1).clamp(min=0)
        inside = (self._end[last] - position).clamp(min=0) * self._excess[last]
        return self._before[place] - torch.where(place > 0, inside, 0)

    def of_kmers(self, windows: Windows, n_kmers: int, k: int) -> torch.Tensor:
        """float32 (B, n_kmers): the mean weight of each k-mer's bases, in the reading direction of the
        window."""
        device = self._offset.device
        genome, contig, start_bp, orientation = (
            getattr(windows, name).to(device) for name in ("genome", "contig", "start_bp", "orientation")
        )
        start = self._offset[self._first_contig[genome] + contig] + start_bp
        edges = start[:, None] + k * torch.arange(n_kmers + 1, device=device)
        weight = (1 + self._excess_before(edges).diff(dim=1) / k).float()
        return torch.where((orientation & 1).bool()[:, None], weight.flip(1), weight)
