"""Peak rates and memory of common GPUs from the makers' data sheets, and a measured peak for other devices.

Rates are dense (no sparsity), of the matrix units if the type has them, with fp32 accumulation, at the boost clock of
the data sheet. `fp32` is the rate of true fp32, `tf32` that of fp32 products under
torch.backends.cuda.matmul.allow_tf32.
"""

import os
import time
from dataclasses import dataclass

import torch

from dnagpt_fast.training.figures import GIB


@dataclass(frozen=True)
class Accelerator:
    """name: as the planner takes it. device_names: texts that torch.cuda.get_device_name contains.
    memory_gib: what a process can allocate, GiB. peak_tflops: type -> 10^12 operations per second.
    link_gb_s: to the other GPUs of a node, one direction, GB/s per GPU (NVLink, otherwise PCIe).
    memory_gb_s: to its own memory, GB/s."""

    name: str
    device_names: tuple[str, ...]
    memory_gib: float
    peak_tflops: dict[str, float]
    link_gb_s: float
    memory_gb_s: float


def _rates(half: float, tf32: float, fp32: float) -> dict[str, float]:
    """tf32: 0 for a device without TF32, which has no bf16 either."""
    return {
        "fp16": half,
        "fp32": fp32,
        **({"bf16": half, "tf32": tf32} if tf32 else {}),
    }


# Longer device names come first: "H100 PCIe" before "H100".
ACCELERATORS = (
    Accelerator("v100", ("V100",), 31.7, _rates(125.0, 0, 15.7), 150, 900),
    Accelerator(
        "a100-40g", ("A100-SXM4-40GB", "A100-PCIE-40GB"), 39.4, _rates(312.0, 156.0, 19.5), 300, 1555
    ),
    Accelerator("a100", ("A100",), 79.1, _rates(312.0, 156.0, 19.5), 300, 2039),
    Accelerator("h100-pcie", ("H100 PCIe",), 79.1, _rates(756.0, 378.0, 51.0), 64, 2000),
    Accelerator("h100", ("H100",), 79.1, _rates(989.0, 494.0, 67.0), 450, 3350),
    Accelerator("h200", ("H200",), 139.8, _rates(989.0, 494.0, 67.0), 450, 4800),
    Accelerator("b200", ("B200",), 178.3, _rates(2250.0, 1125.0, 75.0), 900, 8000),
    Accelerator("l40s", ("L40S",), 44.4, _rates(362.0, 183.0, 91.6), 32, 864),
    Accelerator("a10", ("A10G", "A10"), 22.3, _rates(125.0, 62.5, 31.2), 32, 600),
    Accelerator("rtx4090", ("RTX 4090",), 23.5, _rates(165.2, 82.6, 82.6), 32, 1008),
    Accelerator("rtx3090", ("RTX 3090",), 23.5, _rates(71.0, 35.6, 35.6), 32, 936),
)


def accelerator(name: str) -> Accelerator:
    """An accelerator by the planner's name; `cpu` is the processor of this machine, `this` its CUDA device, if it has
    one, otherwise its processor. Raises ValueError that lists the known names."""
    if name.lower() in ("cpu", "this"):
        return this_machine(cuda=name.lower() == "this")
    for known in ACCELERATORS:
        if known.name == name.lower():
            return known
    names = ", ".join(known.name for known in ACCELERATORS)
    raise ValueError(f"unknown GPU {name!r}: known are {names}, and cpu and this for this machine")


def this_machine(*, cuda: bool = True) -> Accelerator:
    """The CUDA device of this machine, or its processor with all its memory and with the peak rate of its matrix
    products, which is measured in about a second. What the table does not have of a CUDA device is measured too."""
    if cuda and torch.cuda.is_available():
        name, device = torch.cuda.get_device_name(), torch.device("cuda")
        known = accelerator_of(name)
        if known is not None:
            return known
        kinds = ("fp32", "bf16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp32",)
        rates = {kind: measured_peak(device, kind) / 1e12 for kind in kinds}
        return Accelerator(name, (name,), torch.cuda.mem_get_info()[1] / GIB, rates, 0, 0)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rate = measured_peak(torch.device("cpu"), "fp32") / 1e12
    return Accelerator("cpu", (), memory / GIB, {"fp32": rate}, 0, 0)


def accelerator_of(device_name: str) -> Accelerator | None:
    """An accelerator by the driver's name of the device, or None."""
    for known in ACCELERATORS:
        if any(part in device_name for part in known.device_names):
            return known
    return None


def peak_flops(device: torch.device, precision: str) -> tuple[float, str]:
    """(operations per second, source of the figure) of one device at `precision`, a key of `peak_tflops`.

    From the data sheet for a GPU of the table. Otherwise, and always on the CPU, the fastest of a few matrix products,
    which takes about a second: a utilisation is then relative to what this machine's library reaches.
    """
    if device.type == "cuda":
        known = accelerator_of(torch.cuda.get_device_name(device))
        if known is not None and precision in known.peak_tflops:
            return known.peak_tflops[precision] * 1e12, f"data sheet, {known.name} {precision}"
    return measured_peak(device, precision), f"measured matrix product, {device.type} {precision}"


def measured_peak(device: torch.device, precision: str, *, seconds: float = 0.5) -> float:
    """Operations per second of the fastest of several square matrix products, 1024 wide (8192 on a GPU)."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "tf32": torch.float32}[
        precision
    ]
    size = 1024 if device.type == "cpu" else 8192
    a = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    torch.mm(a, a)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        _wait(device)
        began = time.perf_counter()
        torch.mm(a, a)
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
