"""(seed, first sample index, B) -> windows, k-mer ids, GC fraction and order label, in one native call.

It is defined by genome/sampler.py (the window of sample i), followed by ops.kmer_tokenize and ops.gc_count, and gives
the same integers and the same floats. The call runs without the interpreter's lock and uses no Python object.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from dnagpt_fast.batch import Windows
from dnagpt_fast.ops import native
from dnagpt_fast.ops.kmer_tokenize import TOKEN_BYTES
from dnagpt_fast.ops.output import LARGE_BYTES, new_output, output
from dnagpt_fast.packed import PackedGenome


class SampledBatch(NamedTuple):
    """B samples.

    windows      the windows of the genomes
    kmers        (B, n_kmers) ids
    gc_fraction  float32 (B,)  (G + C) / known bases, 0 if no base is known
    gc_known     bool (B,)     whether any base is known
    reversed     bool (B,)     the order label: whether the window is read backwards on its strand
    """

    windows: Windows
    kmers: torch.Tensor
    gc_fraction: torch.Tensor
    gc_known: torch.Tensor
    reversed: torch.Tensor


class BatchSampler:
    """Draws batches from genomes, on the device of the genomes.

    genomes   those that the tables were made from, all on one device
    tables    a genome.sampler.SamplerTables
    seed      0 <= seed < 2^64
    n_kmers   k-mers of a window; the tables must allow only starts whose n_kmers * k bases are inside the contig
    dtype     of the ids: torch.uint16, int32 or int64

    Raises ValueError for tables of a wrong shape and for genomes on different devices.
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
        self._made_from = genomes, tables, seed, n_kmers, k, dynamic, dtype
        self._tables = {}
        for name, kind, length in (
            ("genome_threshold", np.uint64, G - 1),
            ("orientation_threshold", np.uint64, 3),
            ("interval_index", np.int64, G + 1),
            ("rank_before", np.int64, S + 1),
            ("contig", np.int64, S),
            ("start_bp", np.int64, S),
            ("ranks_per_start", np.int64, S),
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
                f"SamplerTables.interval_index {index}: wanted 0 .. {S}, with an interval for each genome"
            )
        self._genomes = list(genomes)
        self.device = self._genomes[0].device
        if any(genome.device != self.device for genome in self._genomes):
            raise ValueError(
                f"genomes on {[str(genome.device) for genome in self._genomes]}: wanted one device"
            )
        self._on_device = {
            name: torch.from_numpy(array).to(self.device) for name, array in self._tables.items()
        }
        self._native_tables = native._native.SamplerTables(
            *(array.data_ptr() for array in self._on_device.values()), G
        )
        self._on_host = native.on_host(self.device)
        if self._on_host:
            self._views = [native.genome_view(genome) for genome in self._genomes]
        else:
            self._cuda = [native.cuda_genome(genome) for genome in self._genomes]
            self._refused = native.RefusedWindow(self.device)
            views = b"".join(genome.view.view_bytes() for genome in self._cuda)
            self._view_bytes = torch.frombuffer(bytearray(views), dtype=torch.uint8).to(self.device)
        kinds = (torch.int64, torch.float32, torch.bool, dtype)
        self._kinds = [torch.empty(0, dtype=kind, device=self.device) for kind in kinds]
        self.seed = seed
        self.n_kmers = n_kmers
        self.k = k
        self.dynamic = dynamic
        self.dtype = dtype
        self._sizes = (n_kmers, k, dynamic, TOKEN_BYTES[dtype])

    def __reduce__(self) -> tuple:
        """Copied and pickled by its arguments: the native objects hold addresses."""
        return _sampler, self._made_from

    def __call__(
        self, first_index: int | torch.Tensor, count: int, *, out: SampledBatch | None = None
    ) -> SampledBatch:
        """Samples first_index .. first_index + count - 1, on the genomes' device.

        out  a batch of `count` samples from an earlier call, to write into and return; None: new tensors

        Raises ValueError for an index above 2^64, and for an `out` whose shapes, dtypes or device do not fit.

        On a CUDA device, first_index may be one int64 in device memory. It is read when the kernel runs, so a captured
        graph draws new samples at each replay. On a CUDA device, a window outside its contig raises IndexError only at
        the next call, or in `synchronize`.
        """
        index, index_address = self._index(first_index, count)
        batch = self._new_batch(count) if out is None else self._checked(out, count)
        windows = batch.windows
        rows = (windows.genome, windows.contig, windows.start_bp, windows.orientation, *batch[1:])
        addresses = [row.data_ptr() for row in rows]
        if self._on_host:
            threads = torch.get_num_threads()
            native._native.sample_batch(
                self._views, self._native_tables, self.seed, index, count, *self._sizes, addresses, threads
            )
        else:
            self._refused.raise_if_any()
            native._native.sample_batch_cuda(
                self._cuda[0].view,
                self._view_bytes.data_ptr(),
                self._native_tables,
                self.seed,
                index,
                index_address,
                count,
                *self._sizes,
                addresses,
                self._refused.address,
                native.current_stream(self.device),
            )
        return batch

    def _new_batch(self, count: int) -> SampledBatch:
        # new_empty of a kept tensor is the fastest allocation, and a small batch spends most of its time on allocations
        int64, float32, boolean, token = self._kinds
        row = int64.new_empty
        windows = Windows(row(count), row(count), row(count), row(count))
        if count * self.n_kmers * token.element_size() < LARGE_BYTES:
            kmers = token.new_empty(count, self.n_kmers)
        else:
            kmers = new_output((count, self.n_kmers), self.dtype, self.device)
        gc_fraction, known, is_reversed = (
            float32.new_empty(count),
            boolean.new_empty(count),
            boolean.new_empty(count),
        )
        return SampledBatch(windows, kmers, gc_fraction, known, is_reversed)

    def _checked(self, out: SampledBatch, count: int) -> SampledBatch:
        if not isinstance(out, SampledBatch):
            raise ValueError(f"out is {type(out).__name__}: wanted a SampledBatch")
        for name in ("genome", "contig", "start_bp", "orientation"):
            row = getattr(out.windows, name)
            output(row, (count,), torch.int64, self.device, f"out.windows.{name}")
        output(out.kmers, (count, self.n_kmers), self.dtype, self.device, "out.kmers")
        output(out.gc_fraction, (count,), torch.float32, self.device, "out.gc_fraction")
        output(out.gc_known, (count,), torch.bool, self.device, "out.gc_known")
        output(out.reversed, (count,), torch.bool, self.device, "out.reversed")
        return out

    def synchronize(self) -> None:
        """Wait for the device, then raise IndexError if a window left its contig. Does nothing on the CPU."""
        if not self._on_host:
            native.wait_for(self.device)
            self._refused.raise_if_any()

    def _index(self, first_index: int | torch.Tensor, count: int) -> tuple[int, int]:
        """(first sample index, 0), or (0, address of the first index in device memory)."""
        if isinstance(first_index, torch.Tensor):
            if self._on_host or first_index.device != self.device:
                raise ValueError(
                    f"first_index on {first_index.device}: wanted an int, or int64 on {self.device}"
                )
            if first_index.dtype != torch.int64 or first_index.numel() != 1 or count < 0:
                raise ValueError(
                    f"first_index is {first_index.numel()} {first_index.dtype}, count {count}: wanted one int64"
                )
            return 0, first_index.data_ptr()
        if first_index < 0 or count < 0 or first_index + count > 2**64:
            raise ValueError(f"samples {first_index} .. {first_index + count}: wanted indices 0 .. 2^64")
        return first_index, 0


def _sampler(
    genomes: Sequence[PackedGenome],
    tables: Any,
    seed: int,
    n_kmers: int,
    k: int,
    dynamic: bool,
    dtype: torch.dtype,
) -> BatchSampler:
    return BatchSampler(genomes, tables, seed, n_kmers, k=k, dynamic=dynamic, dtype=dtype)
