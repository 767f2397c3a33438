"""The compiled kernels, and tensors as they want them: contiguous, on the genome's device, of one dtype.

The extension takes addresses, so everything here keeps the tensors alive until the call returns.
"""

from typing import Any

import numpy as np
import torch

from dnagpt_fast.packed import PackedGenome

try:
    from dnagpt_fast import _native
except ImportError as error:
    raise ImportError(
        f"the compiled part of dnagpt_fast cannot be loaded ({error}); build it with `pip install .` "
        "(or `python setup.py build_ext --inplace` in a clone)"
    ) from error

FIELDS = {
    "packed": torch.uint8,
    "byte_offset": torch.int64,
    "length_bp": torch.int64,
    "n_block_index": torch.int64,
    "n_block_start_bp": torch.int64,
    "n_block_end_bp": torch.int64,
}
INTEGER_DTYPES = {torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64}


def genome_view(genome: PackedGenome) -> Any:
    """What the kernels know of a genome on the host; checked and made once, kept with the genome.

    Raises ValueError where its arrays are of a wrong dtype or shape, or contradict each other.
    """
    view = genome.__dict__.get("_native_view")
    if view is None:
        if genome.device.type != "cpu":
            raise RuntimeError(
                f"genome on {genome.device}: this build has kernels for the CPU only; use genome.to('cpu')"
            )
        _check_arrays(genome)
        view = _native.GenomeView(
            genome.packed.data_ptr(),
            genome.packed.numel(),
            genome.byte_offset.data_ptr(),
            genome.length_bp.data_ptr(),
            genome.length_bp.numel(),
            genome.n_block_index.data_ptr(),
            genome.n_block_start_bp.data_ptr(),
            genome.n_block_end_bp.data_ptr(),
            genome.n_block_start_bp.numel(),
        )
        # a frozen dataclass forbids assignment; the view is no field, only remembered beside them
        genome.__dict__["_native_view"] = view
    return view


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


def int64_row(name: str, values: Any, device: torch.device) -> torch.Tensor:
    """`values` (B,) as one contiguous int64 row on `device`. Raises ValueError for another shape or no integers."""
    if type(values) is not torch.Tensor:
        if not isinstance(values, (torch.Tensor, np.ndarray, list, tuple, range)):
            raise ValueError(f"{name} is {type(values).__name__}: wanted a (B,) array or tensor of integers")
        values = torch.as_tensor(np.asarray(values, dtype=np.int64 if len(values) == 0 else None))
    if values.dtype not in INTEGER_DTYPES or values.dim() != 1:
        raise ValueError(
            f"{name} is {values.dtype} of shape {tuple(values.shape)}: wanted integers of shape (B,)"
        )
    if values.dtype is torch.int64 and values.device == device and values.is_contiguous():
        return values
    return values.to(device, torch.int64).contiguous()


def cpu_isa() -> str:
    """Instruction set the CPU kernels use now: "scalar", "avx2", "avx512" or "neon".

    The best the machine has, or what DNAGPT_FAST_CPU_ISA forces: ValueError for an unknown name, RuntimeError for an
    instruction set that the machine lacks.
    """
    return _native.cpu_isa()


def machine_isas() -> list[str]:
    """All instruction sets this machine can run, the plainest first."""
    return _native.machine_isas()


def cuda_archs() -> list[str]:
    """CUDA architectures compiled in, `["80", "90", ...]`; empty without CUDA."""
    return [arch for arch in _native.cuda_archs.split(",") if arch]
