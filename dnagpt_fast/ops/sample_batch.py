"""(seed, first sample index, B) -> windows, k-mer ids, GC fraction and order label, in one native call.

Its definition is genome/sampler.py (which window sample i is) followed by ops.kmer_tokenize and ops.gc_count; it gives
the same integers and the same floats. The call runs without the interpreter's lock and touches no Python object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dnagpt_fast.batch import Windows
from dnagpt_fast.ops import native
from dnagpt_fast.ops.kmer_tokenize import TOKEN_BYTES
from dnagpt_fast.packed import PackedGenome


@dataclass(frozen=True)
class SampledBatch:
    """B samples.

    windows      where they come from
    kmers        (B, n_kmers) ids
    gc_fraction  float32 (B,)  (G + C) / known bases, 0 where no base is known
    gc_known     bool (B,)     whether any base is known
    reversed     bool (B,)     the order label: read against the direction of the strand it comes from
    """

    windows: Windows
    kmers: torch.Tensor
    gc_fraction: torch.Tensor
    gc_known: torch.Tensor
    reversed: torch.Tensor


class BatchSampler:
    """Draws batches from genomes on the CPU.

    genomes   as the tables were made from
    tables    a genome.sampler.SamplerTables
    seed      0 <= seed < 2^64
    n_kmers   k-mers of a window; the tables must allow only starts whose n_kmers * k bases lie in their contig
    dtype     of the ids: torch.uint16, int32 or int64

    Raises ValueError for tables of a wrong shape.
    """

    def __init__(
        self,
        genomes: Sequence[PackedGenome],
        tables: Any,
        seed: int,
        n_kmers: int,
        *,
        k: int = 6,
        dynamic: bool = True,
        dtype: torch.dtype = torch.uint16,
    ) -> None:
        if dtype not in TOKEN_BYTES:
            raise ValueError(f"dtype {dtype}: wanted torch.uint16, torch.int32 or torch.int64")
        G, S = len(genomes), len(tables.contig)
        self._tables = {}
        for name, kind, length in (
            ("genome_threshold", np.uint64, G - 1),
            ("orientation_threshold", np.uint64, 3),
            ("interval_index", np.int64, G + 1),
            ("rank_before", np.int64, S + 1),
            ("contig", np.int64, S),
            ("start_bp", np.int64, S),
        ):
            array = np.ascontiguousarray(getattr(tables, name))
            if array.dtype != kind or array.shape != (length,):
                raise ValueError(
                    f"SamplerTables.{name} is {array.dtype} {array.shape}: wanted {kind.__name__} ({length},)"
                )
            self._tables[name] = array
        index = self._tables["interval_index"]
        if index[0] != 0 or index[-1] != S or (np.diff(index) < 1).any():
            raise ValueError(
                f"SamplerTables.interval_index {index}: wanted 0 .. {S}, an interval for each genome"
            )
        self._genomes = list(genomes)
        self._views = [native.genome_view(genome) for genome in self._genomes]
        self._native_tables = native._native.SamplerTables(
            *(array.ctypes.data for array in self._tables.values()), G
        )
        self.seed = seed
        self.n_kmers = n_kmers
        self.k = k
        self.dynamic = dynamic
        self.dtype = dtype

    def __call__(self, first_index: int, count: int) -> SampledBatch:
        """Samples first_index .. first_index + count - 1. Raises ValueError beyond 2^64."""
        if first_index < 0 or count < 0 or first_index + count > 2**64:
            raise ValueError(f"samples {first_index} .. {first_index + count}: wanted indices 0 .. 2^64")
        windows = torch.empty((4, count), dtype=torch.int64)
        kmers = torch.empty((count, self.n_kmers), dtype=self.dtype)
        gc_fraction = torch.empty(count, dtype=torch.float32)
        gc_known, turned = torch.empty(count, dtype=torch.bool), torch.empty(count, dtype=torch.bool)
        native._native.sample_batch(
            self._views,
            self._native_tables,
            self.seed,
            first_index,
            count,
            self.n_kmers,
            self.k,
            self.dynamic,
            TOKEN_BYTES[self.dtype],
            [
                *(row.data_ptr() for row in windows),
                *(x.data_ptr() for x in (kmers, gc_fraction, gc_known, turned)),
            ],
            torch.get_num_threads(),
        )
        return SampledBatch(Windows(*windows), kmers, gc_fraction, gc_known, turned)
