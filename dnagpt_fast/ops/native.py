"""Tensors as the compiled kernels take them: contiguous, on the genome's device, of one dtype.

The extension takes addresses, so everything here keeps the tensors alive until the call returns.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from dnagpt_fast.ops.compiled import REBUILD, cuda_archs
from dnagpt_fast.ops.compiled import native_module as _native
from dnagpt_fast.packed import PackedGenome

FIELDS = {
    "packed": torch.uint8,
    "byte_offset": torch.int64,
    "length_bp": torch.int64,
    "n_block_index": torch.int64,
    "n_block_start_bp": torch.int64,
    "n_block_end_bp": torch.int64,
}
# A genome in the schema of a torch.library op: such an op takes tensors, not a dataclass.
SCHEMA = ", ".join(f"Tensor {name}" for name in FIELDS)
INTEGER_DTYPES = {torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64}


def genome_view(genome: PackedGenome) -> Any:
    """The native view of a genome, checked and made once and then kept with the genome.

    For a genome in device memory, the host uses it only to check windows before a launch; it cannot read the bases.
    Raises ValueError if an array has a wrong dtype or shape, or if the arrays contradict each other.
    """
    view = genome.__dict__.get("_native_view")
    if view is None:
        _check_arrays(genome)
        host = genome
        if genome.device.type != "cpu":
            small = {name: getattr(genome, name).cpu() for name in FIELDS if name != "packed"}
            host = PackedGenome(packed=genome.packed, **small)
        view = _native.GenomeView(
            host.packed.data_ptr(),
            host.packed.numel(),
            host.byte_offset.data_ptr(),
            host.length_bp.data_ptr(),
            host.length_bp.numel(),
            host.n_block_index.data_ptr(),
            host.n_block_start_bp.data_ptr(),
            host.n_block_end_bp.data_ptr(),
            host.n_block_start_bp.numel(),
        )
        # a frozen dataclass forbids assignment; the view and the host copies are a cache, not fields
        genome.__dict__["_native_view"] = view
        genome.__dict__["_native_host"] = host
    return view


# as in csrc/cuda/kernels_cuda.h
REASONS = {1: "its contig is not in the genome", 2: "it leaves its contig", 3: "its orientation is not 0..3"}
OPS = ("kmer_tokenize", "gc_count", "sample_batch")


# All records of refused windows, 48 bytes for each genome or sampler, kept until the process ends: a queued kernel may
# write to its record after the genome is freed, and the allocator could have reused that memory.
_records: list[torch.Tensor] = []


class RefusedWindow:
    """The record in which kernels on one device report a window that they refused (csrc/cuda/kernels_cuda.h).

    record  int64 (6,) in page-locked host memory: {code, op, genome, window, contig, start_bp}, code 0 for none
    """

    def __init__(self, device: torch.device) -> None:
        self.record = torch.zeros(6, dtype=torch.int64, pin_memory=device.type == "cuda")
        _records.append(self.record)
        self.address = self.record.data_ptr()
        self._array = self.record.numpy()  # the same memory: read at every call, and much faster to read

    def raise_if_any(self) -> None:
        """Raises IndexError if a kernel has refused a window, and clears the record. Does not wait for the device."""
        if self._array[0] <= 0:  # -1: the record is not complete yet; the next call reads it
            return
        code, op, genome, window, contig, start_bp = self._array.tolist()
        self._array[:] = 0
        where = f"genome {genome}, contig {contig}" if op == 2 else f"contig {contig}"
        raise IndexError(
            f"an earlier {OPS[op]} refused window {window} ({where}, start_bp {start_bp}), made on the device: "
            f"{REASONS[code]}; its tokens were set to the unknown token, its counts to 0"
        )


@dataclass(frozen=True)
class CudaGenome:
    """A genome in device memory as the CUDA kernels take it, and their record of a refused window."""

    view: Any
    refused: RefusedWindow


def cuda_genome(genome: PackedGenome) -> CudaGenome:
    """The CUDA view of a genome, checked and made once and then kept with the genome.

    Raises RuntimeError if this build has no CUDA kernels, IndexError if an earlier call was given a window that leaves
    its contig: windows in device memory are checked on the device, and the host reads the result at the next call or
    in `synchronize`.
    """
    kept = genome.__dict__.get("_native_cuda")
    if kept is None:
        if not cuda_archs():
            raise RuntimeError(
                f"genome on {genome.device}, but dnagpt_fast was built for the CPU only; rebuild it with {REBUILD}"
            )
        host = genome_view(genome)
        refused = RefusedWindow(genome.device)
        addresses = [getattr(genome, name).data_ptr() for name in FIELDS]
        view = _native.CudaGenome(host, genome.device.index or 0, refused.address, *addresses)
        kept = CudaGenome(view, refused)
        genome.__dict__["_native_cuda"] = kept
    kept.refused.raise_if_any()
    return kept


def synchronize(genome: Any) -> None:
    """Wait for all ops on this genome, then raise the errors of their kernels. Does nothing on the CPU, where an op
    raises at once.

    genome  a Genome or its PackedGenome

    Raises IndexError for a window that a kernel refused, RuntimeError for errors of CUDA. A BatchSampler has its own
    method, BatchSampler.synchronize.
    """
    arrays = getattr(genome, "arrays", genome)
    if not on_host(arrays.device):
        wait_for(arrays.device)
        cuda_genome(arrays)


def wait_for(device: torch.device) -> None:
    """Waits until all work queued on this CUDA device is done."""
    torch.cuda.synchronize(device)


def on_host(device: torch.device) -> bool:
    """True if the CPU kernels are used for this device, False if the CUDA kernels are."""
    return device.type == "cpu"


def current_stream(device: torch.device) -> int:
    """Address of torch's current CUDA stream on this device."""
    return torch.cuda.current_stream(device).cuda_stream


def six_arrays(genome: PackedGenome) -> tuple[torch.Tensor, ...]:
    """The arrays of a genome in the order of SCHEMA."""
    return tuple(getattr(genome, name) for name in FIELDS)


# The genomes of torch.library ops, which are called with six tensors instead of one PackedGenome.
_genomes: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def genome_of(*arrays: torch.Tensor) -> PackedGenome:
    """The PackedGenome of these six tensors: the same object for the same tensors, so that they are checked once."""
    known = _genomes.get(arrays[0])
    addresses = tuple(array.data_ptr() for array in arrays) + tuple(array.numel() for array in arrays)
    if known is None or known[0] != addresses:
        # a second tensor over the same bytes: a reference to arrays[0] would keep the entry, and the genome, for ever
        packed = torch.empty(0, dtype=arrays[0].dtype, device=arrays[0].device).set_(arrays[0])  # type: ignore[call-overload]
        kept = PackedGenome(packed, *arrays[1:])
        known = (addresses, kept)
        _genomes[arrays[0]] = known
    return known[1]


def window_rows(device: torch.device, **rows: Any) -> tuple[dict[str, torch.Tensor], bool]:
    """(each of `rows` as int64 (B,) on its own device, whether all of them are on the host).

    Raises ValueError for a wrong shape or dtype, for different lengths, and for a device that is neither the host nor
    the genome's.
    """
    found: dict[str, torch.Tensor] = {}
    count, on_host, elsewhere = -1, True, False
    for name, values in rows.items():
        plain = type(values) is torch.Tensor and values.dtype is torch.int64 and values.dim() == 1
        row = found[name] = values if plain and values.is_contiguous() else int64_row(name, values)
        if count < 0:
            count = row.shape[0]
        elif row.shape[0] != count:
            lengths = {other: int64_row(other, rows[other]).shape[0] for other in rows}
            (first, _), *rest = lengths.items()
            counts = ", ".join(f"{other} {length}" for other, length in rest)
            raise ValueError(f"{first} has {count} entries, {counts}: wanted one of each per window")
        if not row.is_cpu:
            on_host, elsewhere = False, elsewhere or row.device != device
    if elsewhere:
        for name, row in found.items():
            if not row.is_cpu and row.device != device:
                raise ValueError(f"{name} is on {row.device}, the genome on {device}")
    return found, on_host


def on_device(device: torch.device, rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`rows` on the genome's device; rows that are there already are not copied."""
    return {name: row.to(device) if row.is_cpu else row for name, row in rows.items()}


def _check_arrays(genome: PackedGenome) -> None:
    for name, dtype in FIELDS.items():
        array = getattr(genome, name)
        if array.dtype != dtype or array.dim() != 1 or not array.is_contiguous():
            raise ValueError(
                f"PackedGenome.{name} is {array.dtype} of shape {tuple(array.shape)}"
                f"{'' if array.is_contiguous() else ', not contiguous'}: wanted one contiguous row of {dtype}"
            )
        if array.device != genome.packed.device:
            raise ValueError(f"PackedGenome.{name} is on {array.device}, packed on {genome.packed.device}")
    n_contigs = genome.length_bp.numel()
    if genome.byte_offset.numel() != n_contigs or genome.n_block_index.numel() != n_contigs + 1:
        raise ValueError(
            f"PackedGenome: {n_contigs} lengths, {genome.byte_offset.numel()} byte offsets and "
            f"{genome.n_block_index.numel()} N block indices; wanted C, C and C + 1"
        )
    if genome.n_block_start_bp.numel() != genome.n_block_end_bp.numel():
        raise ValueError(
            f"PackedGenome: {genome.n_block_start_bp.numel()} N block starts, {genome.n_block_end_bp.numel()} ends"
        )


def int64_row(name: str, values: Any) -> torch.Tensor:
    """`values` (B,) as a contiguous int64 tensor on its own device. Raises ValueError for other shapes or dtypes."""
    if type(values) is not torch.Tensor:
        # columns of pandas and polars are arrays by __array__
        if not (isinstance(values, (torch.Tensor, list, tuple, range)) or hasattr(values, "__array__")):
            raise ValueError(f"{name} is {type(values).__name__}: wanted a (B,) array or tensor of integers")
        array = np.asarray(values)
        if array.dtype.kind not in "iub" and array.size:
            names = "; the number of a contig is genome.names.index(name)" if array.dtype.kind in "UO" else ""
            raise ValueError(f"{name} is {array.dtype} of shape {array.shape}: wanted integers (B,){names}")
        if not array.size:
            array = array.astype(np.int64)
        # a column of pandas may be read-only, which torch warns of
        values = torch.as_tensor(array if array.flags.writeable else array.copy())
    if values.dtype not in INTEGER_DTYPES or values.dim() != 1:
        raise ValueError(
            f"{name} is {values.dtype} of shape {tuple(values.shape)}: wanted integers of shape (B,)"
        )
    return values.to(torch.int64).contiguous()
