"""Reads torch's files (.pth) as data: no code in the file runs, and no more memory is used than the file has
bytes.

checkpoint_files.py reads checkpoint folders by the same rules.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

# Calls that torch's own unpickler of weights allows but no tensor needs: bytearray(10**12), codecs that
# double a text.
COMPUTING = (b"builtin__\nbytearray\n", b"builtins\nbytearray\n", b"_codecs\nencode\n")
SCANNED_AT_ONCE = 16 << 20


class CheckpointError(ValueError):
    """A checkpoint or a file of weights that is damaged, is no DNAGPT or does not fit the model; the message
    names the file or folder and the reason."""


class UnsafeFile(ValueError):
    """A file that asks for more than data: for code, for other files, or for more memory than it has
    bytes."""


def reason(error: BaseException) -> str:
    """The reason, in one line, why torch could not read a file. torch's advice to turn the protection off is
    left out."""
    text = str(error)
    if "weights_only" in text or isinstance(error, pickle.UnpicklingError):
        asked = re.search(r"(?:GLOBAL|Unsupported class|Unsupported global:) ([\w.]+)", text)
        what = f"{asked[1]}, which is no tensor" if asked else "something that is no tensor, or it is damaged"
        return (
            f"it holds {what}; no code of it was run. Load files with code only where you trust their author"
        )
    return (text.strip().splitlines() or [type(error).__name__])[0][:300]


def cause(error: BaseException) -> BaseException | None:
    """The error, as the cause of another; None if its text has torch's advice to turn the protection off."""
    return None if "weights_only" in str(error) else error


def load_tensors(path: Path) -> Any:
    """The content of a torch file, on the CPU. Only tensors and plain containers are unpickled.

    Raises UnsafeFile, OSError, and torch's own errors for a damaged file.
    """
    with open(path, "rb") as file:
        refuse_growth(file, path.stat().st_size)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def refuse_growth(file: IO[bytes], size: int) -> None:
    """Raises UnsafeFile for a torch file that could need far more memory than it has bytes: a compressed
    archive (torch's are not compressed), or a pickle that computes its content."""
    _refuse_compressed(file, size)
    file.seek(0)
    kept = b""
    while chunk := file.read(SCANNED_AT_ONCE):
        text = kept + chunk
        if any(name in text for name in COMPUTING):
            raise UnsafeFile("it holds something that is computed while it is read, which is no tensor")
        kept = text[-32:]


def _refuse_compressed(file: IO[bytes], size: int) -> None:
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            listed_at = archive.start_dir
        file.seek(max(size - 22, 0))
        end = file.read(22)
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
        raise UnsafeFile(f"its archive is damaged: {error}") from error
    # Python's reader of archives and torch's could find different lists of entries here.
    if not end.startswith(b"PK\x05\x06") or int.from_bytes(end[16:20], "little") not in (
        listed_at,
        2**32 - 1,
    ):
        raise UnsafeFile("its archive is damaged: bytes before or after it")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or (
        sum(entry.file_size for entry in entries) > size
    ):
        raise UnsafeFile("its archive holds more bytes than the file has: it is compressed, or damaged")


def refuse_expanded(tensors: dict[str, torch.Tensor], file_bytes: int) -> None:
    """Raises UnsafeFile for tensors with more elements than their file has, for example by a stride of 0."""
    for name, tensor in tensors.items():
        _refuse_expanded(name, tensor)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors.values()}
    total = sum(storage.nbytes() for storage in storages.values())
    if total > file_bytes:
        raise UnsafeFile(f"its tensors take {total:,} bytes, but it has {file_bytes:,}")


def _refuse_expanded(name: str, tensor: torch.Tensor) -> None:
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise UnsafeFile(f"{name} is no plain tensor")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UnsafeFile(f"{name} has shape {tuple(tensor.shape)}, but the file has fewer numbers")
