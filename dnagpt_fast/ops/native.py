"""Tensors as the compiled kernels want them: contiguous, on the genome's device, of one dtype.

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
# A genome in the schema of a torch.library op, which takes tensors and no dataclass.
SCHEMA = ", ".join(f"Tensor {name}" for name in FIELDS)
INTEGER_DTYPES = {torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64}


def genome_view(genome: PackedGenome) -> Any:
    """What the host knows of a genome: checked and made once, kept with the genome.

    For a genome in device memory it serves to check windows before a launch; its packed bases cannot be read.
    Raises ValueError where its arrays are of a wrong dtype or shape, or contradict each other.
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
        # a frozen dataclass forbids assignment; view and host copies are no fields, only remembered beside them
        genome.__dict__["_native_view"] = view
        genome.__dict__["_native_host"] = host
    return view


# as in csrc/cuda/kernels_cuda.h
TROUBLE = {1: "its contig is not in the genome", 2: "it leaves its contig", 3: "its orientation is not 0..3"}
TROUBLE_OPS = ("kmer_tokenize", "gc_count", "sample_batch")


# Records of refused windows, kept until the process ends, 48 bytes a genome or sampler: a kernel that is still queued
# may write to one after its genome is gone, and the allocator would have given those bytes to somebody else.
_records: list[torch.Tensor] = []


class Trouble:
    """Where kernels on one device report a window that they refused: Trouble of csrc/cuda/kernels_cuda.h.

    words  int64 (6,) in page-locked host memory: {code, op, genome, window, contig, start_bp}, code 0 for none
    """

    def __init__(self, device: torch.device) -> None:
        self.words = torch.zeros(6, dtype=torch.int64, pin_memory=device.type == "cuda")
        _records.append(self.words)
        self.address = self.words.data_ptr()
        self._seen = self.words.numpy()  # the same memory: asked at every call, and much quicker to ask

    def raise_if_any(self) -> None:
        """IndexError where a kernel has refused a window; the words are cleared. Does not wait for the device."""
        if self._seen[0] <= 0:  # -1: the other words are being written, and the next call will tell
            return
        code, op, genome, window, contig, start_bp = self._seen.tolist()
        self._seen[:] = 0
        where = f"genome {genome}, contig {contig}" if op == 2 else f"contig {contig}"
        raise IndexError(
            f"{TROUBLE_OPS[op]} earlier met window {window} ({where}, start_bp {start_bp}), made on the device: "
            f"{TROUBLE[code]}; its tokens were set to the unknown token, its counts to 0"
        )


@dataclass(frozen=True)
class CudaGenome:
    """A genome in device memory as the CUDA kernels take it, and what they tell of windows on it."""

    view: Any
    trouble: Trouble


def cuda_genome(genome: PackedGenome) -> CudaGenome:
    """Checked and made once, kept with the genome.

    Raises RuntimeError where this build has no CUDA kernels, IndexError where an earlier call met a window that leaves
    its contig: windows that are in device memory are checked there, and the host learns it at the next call, or in
    `synchronize`.
    """
    kept = genome.__dict__.get("_native_cuda")
    if kept is None:
        if not cuda_archs():
            raise RuntimeError(
                f"genome on {genome.device}, but dnagpt_fast was built for the CPU only; rebuild it with {REBUILD}"
            )
        host = genome_view(genome)
        trouble = Trouble(genome.device)
        addresses = [getattr(genome, name).data_ptr() for name in FIELDS]
        view = _native.CudaGenome(host, genome.device.index or 0, trouble.address, *addresses)
        kept = CudaGenome(view, trouble)
        genome.__dict__["_native_cuda"] = kept
    kept.trouble.raise_if_any()
    return kept


def synchronize(genome: Any) -> None:
    """Wait for all ops on this genome, then raise what their kernels found: nothing on the CPU, which tells at once.

    genome  a Genome or its PackedGenome

    Raises IndexError for a window that a kernel refused, RuntimeError for what CUDA itself has to say. For a
    BatchSampler there is BatchSampler.synchronize.
    """
    arrays = getattr(genome, "arrays", genome)
    if not on_host(arrays.device):
        wait_for(arrays.device)
        cuda_genome(arrays)


def wait_for(device: torch.device) -> None:
    """Until all work queued on this CUDA device is done."""
    torch.cuda.synchronize(device)


def on_host(device: torch.device) -> bool:
    """Whether the CPU kernels serve this device; if not, the CUDA kernels do."""
    return device.type == "cpu"


def current_stream(device: torch.device) -> int:
    """Address of torch's current CUDA stream on this device."""
    return torch.cuda.current_stream(device).cuda_stream


def six_arrays(genome: PackedGenome) -> tuple[torch.Tensor, ...]:
    """The arrays of a genome in the order of SCHEMA."""
    return tuple(getattr(genome, name) for name in FIELDS)


# The genomes that torch.library ops have met, which get six tensors instead of one PackedGenome.
_genomes: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def genome_of(*arrays: torch.Tensor) -> PackedGenome:
    """The PackedGenome of these six tensors: the same object as long as they are the same, so that checks are kept."""
    known = _genomes.get(arrays[0])
    addresses = tuple(array.data_ptr() for array in arrays) + tuple(array.numel() for array in arrays)
    if known is None or known[0] != addresses:
        # held by its bytes alone: a reference to `packed` would keep the entry, and the genome, for ever
        packed = torch.empty(0, dtype=arrays[0].dtype, device=arrays[0].device).set_(arrays[0])  # type: ignore[call-overload]
        kept = PackedGenome(packed, *arrays[1:])
        known = (addresses, kept)
        _genomes[arrays[0]] = known
    return known[1]


def window_rows(device: torch.device, **rows: Any) -> tuple[dict[str, torch.Tensor], bool]:
    """(each of `rows` as int64 (B,), where it is; whether all of them are on the host).

    Raises ValueError for another shape or dtype, another length than the first row's, another device than the genome's.
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
            raise ValueError(f"{first} has {count} entries, {counts}: wanted one of each a window")
        if not row.is_cpu:
            on_host, elsewhere = False, elsewhere or row.device != device
    if elsewhere:
        for name, row in found.items():
            if not row.is_cpu and row.device != device:
                raise ValueError(f"{name} is on {row.device}, the genome on {device}")
    return found, on_host


def on_device(device: torch.device, rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`rows` on the genome's device; those that are there already are not touched."""
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
    """`values` (B,) as one contiguous int64 row where it is. Raises ValueError for another shape or no integers."""
    if type(values) is not torch.Tensor:
        if not isinstance(values, (torch.Tensor, np.ndarray, list, tuple, range)):
            raise ValueError(f"{name} is {type(values).__name__}: wanted a (B,) array or tensor of integers")
        values = torch.as_tensor(np.asarray(values, dtype=np.int64 if len(values) == 0 else None))
    if values.dtype not in INTEGER_DTYPES or values.dim() != 1:
        raise ValueError(
            f"{name} is {values.dtype} of shape {tuple(values.shape)}: wanted integers of shape (B,)"
        )
    return values.to(torch.int64).contiguous()
