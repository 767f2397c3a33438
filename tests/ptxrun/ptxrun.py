"""Runs PTX kernels on the CPU with every memory access checked; README.md in this folder says what that proves.

    stats = Module(ptx_text).launch("kernel", grid, block, [array, tensor, 3, 0.5], shared_bytes=0, seed=0)

Arguments are numpy arrays or CPU tensors (pointers), numbers, None (a null pointer), ReadOnly, Struct or TensorMap.
"""

import ctypes
import functools
import hashlib
import json
import os
import platform
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
FLAGS = [
    *("-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-fno-math-errno"),
    *("-Wall", "-Wno-misleading-indentation", "-shared", "-fPIC", "-pthread"),
]


class PtxError(RuntimeError):
    """A forbidden action of a kernel, or an instruction that is not supported."""


class RaceError(PtxError):
    """Two warps touched the same byte of shared memory with no order between them."""


class Stats(dict[str, Any]):
    """Counts of one launch; also readable as attributes."""

    __getattr__ = dict.__getitem__


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("host", ctypes.c_void_p),
        ("size", ctypes.c_uint64),
        ("misalign", ctypes.c_uint32),
        ("writable", ctypes.c_uint32),
    ]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(line for line in lines if line.startswith(("model name", "flags")))[:4000]


@functools.cache
def library() -> ctypes.CDLL:
    """The C++ part: built once, kept in the temporary folder under a hash of source, flags and CPU."""
    sources = sorted([*HERE.glob("*.h"), HERE / "ptxrun.cpp"])
    text = b"".join(path.read_bytes() for path in sources) + repr(FLAGS).encode() + _cpu().encode()
    name = f"ptxrun-{os.getuid()}-{hashlib.sha256(text).hexdigest()[:16]}.so"
    built = Path(tempfile.gettempdir(), name)
    if not built.exists():
        partial = built.with_suffix(f".{os.getpid()}")
        command = [os.environ.get("CXX", "g++"), *FLAGS, str(HERE / "ptxrun.cpp"), "-o", str(partial)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise PtxError(f"building ptxrun.cpp failed:\n{run.stderr}")
        partial.replace(built)
    lib = ctypes.CDLL(str(built))
    address, text_type = ctypes.c_void_p, ctypes.c_char_p
    out = ctypes.POINTER(address)
    u32, u64, number = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int
    lib.ptx_load.restype, lib.ptx_load.argtypes = address, [text_type, out]
    lib.ptx_info.restype, lib.ptx_info.argtypes = address, [address]
    lib.ptx_global.restype, lib.ptx_global.argtypes = address, [address, text_type]
    lib.ptx_unload.argtypes = [address]
    lib.ptx_free.argtypes = [address]
    lib.ptx_launch.restype = address
    lib.ptx_launch.argtypes = [
        address, text_type, address, address, number, address, address, u32, u32, u64, number, number, number, u64, out,
    ]  # fmt: skip
    return lib


def _text(pointer: Any) -> str:
    text = ctypes.string_at(pointer).decode(errors="replace")
    library().ptx_free(pointer)
    return text


def _extent(array: Any) -> tuple[int, int, int, bool]:
    """(first byte, size in bytes, distance from the start of the allocation, writable) of an array or tensor."""
    if isinstance(array, np.ndarray):
        low, high = np.lib.array_utils.byte_bounds(array)
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        offset = low - base.__array_interface__["data"][0]
        return low, (high - low) if array.size else 0, offset, array.flags.writeable
    if array.device.type != "cpu":
        raise TypeError(f"tensor is on {array.device}, wanted the CPU")
    last = sum((n - 1) * step for n, step in zip(array.shape, array.stride(), strict=True))
    size = (last + 1) * array.element_size() if array.numel() else 0
    return array.data_ptr(), size, array.storage_offset() * array.element_size(), True


_PACK = {
    "u8": "B", "s8": "b", "b8": "B", "u16": "H", "s16": "h", "b16": "H", "u32": "I", "s32": "i", "b32": "I",
    "u64": "Q", "s64": "q", "b64": "Q", "f32": "f", "f64": "d", "f16": "e",
}  # fmt: skip


class ReadOnly:
    """Wraps an array argument: a write to it by the kernel is an error."""

    def __init__(self, array: Any) -> None:
        self.array = array


class Struct:
    """A struct by value: Struct("<i4xP", 3, array), format letters of `struct`, P (or Q) for pointers to arrays."""

    def __init__(self, layout: str, *values: Any) -> None:
        self.layout, self.values = layout.replace("P", "Q"), values


# name -> (number in a tensor map, bytes)
_ELEMENT = {
    "u8": (0, 1), "u16": (1, 2), "u32": (2, 4), "s32": (3, 4), "u64": (4, 8), "s64": (5, 8), "f16": (6, 2),
    "f32": (7, 4), "f32.ftz": (8, 4), "f64": (9, 8), "bf16": (10, 2), "tf32": (11, 4), "tf32.ftz": (12, 4),
}  # fmt: skip
_NAMES = {
    "uint8": "u8", "int8": "u8", "bool": "u8", "uint16": "u16", "int16": "u16", "uint32": "u32", "int32": "s32",
    "uint64": "u64", "int64": "s64", "float16": "f16", "float32": "f32", "float64": "f64", "bfloat16": "bf16",
}  # fmt: skip


class TensorMap:
    """A CUtensorMap argument: boxes of `box` elements of an array, for the tensor copies of sm_90.

    shape, strides (in elements; of the array by default) and box are in the order of the array's dimensions, the
    contiguous one last.  swizzle: 0, 32, 64 or 128 bytes.  fill: 0, or "nan" outside the tensor.  What the driver's
    encoding function refuses is an error here too.  The 128 bytes are ptxrun's own encoding (struct TMap in machine.h).
    """

    def __init__(
        self,
        array: Any,
        box: Any,
        shape: Any = None,
        strides: Any = None,
        swizzle: int = 0,
        fill: Any = 0,
        dtype: str | None = None,
        element_strides: Any = None,
        interleave: int = 0,
    ) -> None:
        source = array.array if isinstance(array, ReadOnly) else array
        self.array = array
        kind, size = _ELEMENT[dtype or _NAMES[str(source.dtype).replace("torch.", "")]]
        shape = list(source.shape if shape is None else shape)
        if strides is None:
            numpy = isinstance(source, np.ndarray)
            strides = [x // source.itemsize for x in source.strides] if numpy else list(source.stride())
        box, rank = list(box), len(shape)
        steps = list(element_strides or [1] * rank)
        if not 1 <= rank <= 5 or not len(box) == len(strides) == len(steps) == rank:
            raise PtxError(f"tensor map: shape {shape!r}, strides {strides!r} and box {box!r}")
        if interleave or steps != [1] * rank:
            raise PtxError("tensor map: interleaved layouts and element strides are not supported")
        if strides[-1] != 1:
            raise PtxError(f"tensor map: the last dimension is not contiguous (stride {strides[-1]})")
        bad = [x for x in strides[:-1] if x <= 0 or x * size % 16 or x * size >= 1 << 40]
        if bad:
            raise PtxError(
                f"tensor map: strides {bad!r} x {size} bytes are not positive multiples of 16 bytes"
            )
        if any(not 1 <= x <= 256 for x in box) or any(not 1 <= x <= 1 << 32 for x in shape):
            raise PtxError(f"tensor map: box {box!r} or shape {shape!r} out of range")
        row = box[-1] * size
        if swizzle not in (0, 32, 64, 128) or row % 16 or (swizzle and row > swizzle):
            raise PtxError(f"tensor map: box rows of {row} bytes with a swizzle of {swizzle!r} bytes")
        self._rest = struct.pack(
            "<6B2s5I5H5H4Q40x",
            *(rank - 1, kind, 0, swizzle.bit_length() - 5 if swizzle else 0, int(fill == "nan"), 0, b"TM"),
            *_innermost_first([x & 0xFFFFFFFF for x in shape], 5),
            *_innermost_first(box, 5),
            *_innermost_first(steps, 5),
            *_innermost_first([x * size for x in strides[:-1]], 4),
        )

    def encode(self, address: int) -> bytes:
        """The 128 bytes for an array at this address."""
        if address % 16:
            raise PtxError("tensor map: the address is not aligned to 16 bytes")
        return struct.pack("<Q", address) + self._rest


def _innermost_first(values: list[int], length: int) -> list[int]:
    return (values[::-1] + [0] * length)[:length]


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "data_ptr")


class _Buffers:
    """The arrays of one launch, each in its own address slot, so that no two are neighbours."""

    def __init__(self, first_slot: int, slot_bits: int) -> None:
        self.first_slot, self.slot_bits = first_slot, slot_bits
        self.found: list[_Buffer] = []
        self.kept: list[Any] = []  # alive until the launch is over

    def address(self, value: Any) -> int:
        """Registers an array and returns its device address; 0 for None, a number unchanged."""
        if not (_is_array(value) or isinstance(value, ReadOnly)):
            return 0 if value is None else value
        array = value.array if isinstance(value, ReadOnly) else value
        low, size, offset, writable = _extent(array)
        offset %= 1 << 20
        self.found.append(_Buffer(low, size, offset, int(writable and not isinstance(value, ReadOnly))))
        self.kept.append(array)
        slot = self.first_slot + len(self.found)
        return (slot << self.slot_bits) + (1 << (self.slot_bits - 1)) + offset

    def bytes_of(self, value: Any, kind: str, size: int, where: str) -> bytes:
        """A parameter of PTX type `kind` and `size` bytes."""
        if value is None:
            return bytes(size)
        if isinstance(value, bytes | bytearray):
            return bytes(value)
        if isinstance(value, TensorMap):
            return value.encode(self.address(value.array))
        if isinstance(value, Struct):
            return struct.pack(value.layout, *(self.address(x) for x in value.values))
        if isinstance(value, np.generic):
            return struct.pack("<" + _PACK[kind], value.item())
        if _is_array(value) or isinstance(value, ReadOnly):
            if size != 8:
                raise PtxError(f"{where} is a .{kind}, not a pointer")
            return struct.pack("<Q", self.address(value))
        if kind not in _PACK:
            raise PtxError(f"{where}: cannot pass {type(value)!r} as .{kind}")
        if kind[0] == "f":
            return struct.pack("<" + _PACK[kind], value)
        if isinstance(value, float):
            raise PtxError(f"{where} is a .{kind}, got a float")
        bits = 8 * size
        if not -(1 << (bits - 1)) <= int(value) < (1 << bits):
            raise PtxError(f"{where}: {value!r} does not fit .{kind}")
        return (int(value) & ((1 << bits) - 1)).to_bytes(size, "little")


def _three(sizes: Any) -> Any:
    return (ctypes.c_uint32 * 3)(*(*np.atleast_1d(sizes).tolist(), 1, 1, 1)[:3])


class Module:
    """A loaded PTX module. Raises PtxError for text that cannot be read or is not supported."""

    def __init__(self, ptx: str | bytes) -> None:
        lib, error = library(), ctypes.c_void_p()
        self._handle = lib.ptx_load(ptx.encode() if isinstance(ptx, str) else ptx, ctypes.byref(error))
        if not self._handle:
            raise PtxError(_text(error))
        self.info = json.loads(_text(lib.ptx_info(self._handle)))
        self.kernels = list(self.info["entries"])

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            library().ptx_unload(self._handle)
            self._handle = None

    def symbol(self, name: str, dtype: Any = np.uint8) -> np.ndarray:
        """A writable view of a module-level .global or .const variable (cudaMemcpyToSymbol)."""
        size = self.info["globals"][name]
        address = library().ptx_global(self._handle, name.encode())
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype)

    def launch(
        self,
        name: str,
        grid: Any,
        block: Any,
        args: list[Any],
        shared_bytes: int = 0,
        seed: int = 0,
        race: bool | str = False,
        threads: int = 1,
        resident: int | None = None,
        max_steps: int = 2_000_000_000,
    ) -> Stats:
        """Run one kernel.

        race: False, True (raise RaceError) or "report" (list in stats.races).
        seed 0: warps and blocks in order, everything asynchronous as late as it can be. Others: random order of blocks,
        random switching between warps of `resident` blocks at a time, asynchronous work at random times.
        """
        lib = library()
        if name not in self.info["entries"]:
            raise PtxError(f"no kernel named {name}; there are: {', '.join(self.kernels)}")
        entry = self.info["entries"][name]
        params = entry["params"]
        if len(args) != len(params):
            raise PtxError(f"{name} takes {len(params)} parameters, {len(args)} given")
        blob, buffers = bytearray(entry["bytes"]), _Buffers(self.info["nglobals"], self.info["slot"])
        for i, (value, (offset, size, _, kind, _)) in enumerate(zip(args, params, strict=True)):
            where = f"parameter {i} of {name}"
            made = buffers.bytes_of(value, kind, size, where)
            if len(made) != size:
                raise PtxError(f"{where} has {size} bytes, {len(made)} given")
            blob[offset : offset + size] = made
        array = (_Buffer * max(1, len(buffers.found)))(*buffers.found)
        if resident is None:
            resident = 3 if seed else 1
        error, began = ctypes.c_void_p(), time.perf_counter()
        pointer = lib.ptx_launch(
            self._handle, name.encode(), _three(grid), _three(block), len(buffers.found), array, bytes(blob), len(blob),
            shared_bytes, seed, int(bool(race)), threads, resident, max_steps, ctypes.byref(error),
        )  # fmt: skip
        if not pointer:
            raise PtxError(_text(error))
        stats = Stats(json.loads(_text(pointer)))
        stats["seconds"] = time.perf_counter() - began
        for key in list(stats):
            if key.endswith("_bytes"):
                stats[key] = {int(width): n for width, n in stats[key].items()}
        if stats["races"] and race and race != "report":
            raise RaceError(f"{len(stats['races'])} shared memory race(s):\n" + "\n".join(stats["races"]))
        return stats


def _descriptor(value: Any, how: dict[str, Any] | None) -> list[Any]:
    """The parameters into which Triton converts a host tensor descriptor.

    how: its entry in the metadata's tensordesc_meta, or None where the kernel was compiled for plain pointers.
    """
    read_only = isinstance(value, ReadOnly)
    descriptor = value.array if read_only else value
    base = ReadOnly(descriptor.base) if read_only else descriptor.base
    nan = getattr(descriptor, "padding", "zero") == "nan"
    rounds = [descriptor.round_f32_to_tf32] if hasattr(descriptor, "round_f32_to_tf32") else []
    shape, strides = descriptor.shape, descriptor.strides
    if how is None:
        return [base, *shape, *strides, nan, *rounds, *shape, *strides]
    if how.get("is_im2col") or how.get("fp4_padded") or any(rounds):
        raise PtxError("tensor descriptor: im2col, fp4 and rounding to tf32 are not supported")
    name = {number: key for key, (number, _) in _ELEMENT.items()}[how["elem_type"]]
    swizzle = (0, 32, 64, 128)[how["swizzle"]]
    fill = "nan" if nan else 0
    box = list(how["block_size"])
    return [TensorMap(base, box, shape, strides, swizzle=swizzle, fill=fill, dtype=name), *shape, *strides]


def launch_triton(
    compiled: Any, grid: Any, args: list[Any], *, ptx: str | None = None, **options: Any
) -> Stats:
    """Launch a kernel compiled ahead of time by Triton (with .asm["ptx"] and .metadata).

    args: the run-time arguments, without constexprs; the hidden scratch parameters are added here.
    ptx: in place of the kernel's own.
    """
    metadata = compiled.metadata
    module = Module(ptx or compiled.asm["ptx"])
    meta, flat = list(getattr(metadata, "tensordesc_meta", None) or []), []
    for value in args:
        plain = value.array if isinstance(value, ReadOnly) else value
        is_descriptor = hasattr(plain, "block_shape")
        flat += _descriptor(value, meta.pop(0) if meta else None) if is_descriptor else [value]
    if getattr(metadata, "num_ctas", 1) != 1:
        raise PtxError(f"{metadata.name}: clusters of {metadata.num_ctas} blocks are not supported")
    extra = len(module.info["entries"][metadata.name]["params"]) - len(flat)
    if not 0 <= extra <= 2:
        raise PtxError(f"{metadata.name}: {len(args)} arguments do not make its parameters")
    tail: list[Any] = [None] * extra
    size = getattr(metadata, "global_scratch_size", 0) or 0
    if size and extra:
        tail[0] = np.zeros(size * int(np.prod(np.atleast_1d(grid))), np.uint8)
    block = (32 * metadata.num_warps,)
    return module.launch(metadata.name, grid, block, flat + tail, shared_bytes=metadata.shared, **options)
