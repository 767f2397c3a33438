"""torch's own files, read such that no code of the file runs and no more memory is taken than it has bytes.

Published .pth files; checkpoint_files.py reads checkpoint folders by the same rules.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import torch


class CheckpointError(ValueError):
    """A checkpoint or a file of weights that is damaged, is no DNAGPT or belongs to another; the message names the file
    or folder and the reason."""


class UnsafeFile(ValueError):
    """A file that asks for more than data: for code, for files beside it, for memory that it has no bytes for."""


def reason(error: BaseException) -> str:
    """One line that says why torch could not read a file. torch's own advice, to turn the protection off, is not
    passed on."""
    text = str(error)
    if "weights_only" in text or isinstance(error, pickle.UnpicklingError):
        asked = re.search(r"(?:GLOBAL|Unsupported class|Unsupported global:) ([\w.]+)", text)
        what = f"{asked[1]}, which is no tensor" if asked else "something that is no tensor, or it is damaged"
        return (
            f"it holds {what}; nothing of it was run. Load files with code only where you trust their author"
        )
    return (text.strip().splitlines() or [type(error).__name__])[0][:300]


def load_tensors(path: Path) -> Any:
    """What a torch file holds, on the CPU. Only tensors and plain containers are unpickled.

    Raises UnsafeFile, OSError, and what torch raises for a damaged file.
    """
    with open(path, "rb") as file:
        refuse_compressed(file, path.stat().st_size)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def refuse_compressed(file: IO[bytes], size: int) -> None:
    """torch stores its archives uncompressed: a small compressed one could fill the memory. Raises UnsafeFile."""
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
        raise UnsafeFile(f"its archive is damaged: {error}") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or (
        sum(entry.file_size for entry in entries) > size
    ):
        raise UnsafeFile("its archive holds more bytes than the file has: it is compressed, or damaged")


def refuse_expanded(name: str, tensor: torch.Tensor) -> None:
    """Raises UnsafeFile for a tensor that names more elements than its file has, as by a stride of 0."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise UnsafeFile(f"{name} is no plain tensor")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UnsafeFile(f"{name} has shape {tuple(tensor.shape)} but not so many numbers")
