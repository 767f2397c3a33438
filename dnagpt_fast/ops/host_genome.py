"""A packed genome as numpy arrays on the host: made by the file readers, used where torch is not needed."""

import os
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from dnagpt_fast.ops.compiled import native_module


@dataclass(frozen=True)
class HostGenome:
    """The arrays of packed.PackedGenome, under the same names, as contiguous numpy arrays."""

    packed: np.ndarray
    byte_offset: np.ndarray
    length_bp: np.ndarray
    n_block_index: np.ndarray
    n_block_start_bp: np.ndarray
    n_block_end_bp: np.ndarray

    @classmethod
    def of(cls, genome: Any) -> "HostGenome":
        """Of a Genome, a PackedGenome on the CPU or a HostGenome, without a copy. Raises ValueError for a genome on
        another device."""
        if isinstance(genome, cls):
            return genome
        if isinstance(host := getattr(genome, "host", None), cls):
            return host
        if genome.device.type != "cpu":
            raise ValueError(f"genome on {genome.device}: wanted one on the CPU")
        return cls(*(getattr(genome, field.name).numpy() for field in fields(cls)))

    def __reduce__(self) -> tuple:
        """Pickled as its arrays: the view holds addresses."""
        return HostGenome, tuple(self.arrays())

    def __deepcopy__(self, memo: dict) -> "HostGenome":
        """The same object: a genome is never written to, and may be larger than the memory."""
        return self

    def arrays(self) -> list[np.ndarray]:
        """The six arrays, in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)]

    @cached_property
    def view(self) -> Any:
        """The argument of the kernels. Raises ValueError if the arrays contradict each other."""
        packed, byte_offset, length_bp, *blocks = (array.ctypes.data for array in self.arrays())
        sizes = len(self.packed), len(self.length_bp), len(self.n_block_start_bp)
        return native_module.GenomeView(packed, sizes[0], byte_offset, length_bp, sizes[1], *blocks, sizes[2])

    def gc_of_contigs(self) -> tuple[np.ndarray, np.ndarray]:
        """G + C bases and known (not N) bases of every whole contig, int64 (C,) each."""
        return self.gc_of(np.arange(len(self.length_bp)), np.zeros_like(self.length_bp), self.length_bp)

    def gc_of(
        self, contig: np.ndarray, start_bp: np.ndarray, length_bp: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same of ranges; all arrays are contiguous int64 (B,). It is ops.gc_count without tensors, and without
        checks: the ranges must be inside their contigs."""
        gc, known = np.empty_like(length_bp), np.empty_like(length_bp)
        rows = (array.ctypes.data for array in (contig, start_bp, length_bp))
        out = (gc.ctypes.data, known.ctypes.data)
        native_module.gc_count(self.view, *rows, 0, len(contig), *out, os.cpu_count() or 1)
        return gc, known
