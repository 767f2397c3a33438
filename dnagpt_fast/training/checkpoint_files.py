"""Reads checkpoint folders in torch.distributed.checkpoint's format as data: no code in a file runs, and no
more memory is used than the folder has bytes.

The tensors (.distcp) and the list of them (.metadata) are pickles by torch.
"""

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import IO, Any, ClassVar, cast

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import filesystem, metadata
from torch.distributed.checkpoint._nested_dict import set_element
from torch.distributed.checkpoint.planner import ReadItem

from dnagpt_fast.input_files import check_regular
from dnagpt_fast.training.torch_files import UnsafeFile, refuse_growth

METADATA = ".metadata"
# A checkpoint of hundreds of processes has a few MiB of metadata.
MOST_METADATA_BYTES = 64 << 20
# All classes that torch's own writer puts into .metadata, except numbers, strings, lists, tuples and dicts.
KNOWN_CLASSES: dict[tuple[str, str], Any] = {
    **{
        (metadata.__name__, kind.__name__): kind
        for kind in (
            metadata.BytesStorageMetadata,
            metadata.ChunkStorageMetadata,
            metadata.Metadata,
            metadata.MetadataIndex,
            metadata.StorageMeta,
            metadata.TensorProperties,
            metadata.TensorStorageMetadata,
            metadata._MEM_FORMAT_ENCODING,
        )
    },
    (filesystem.__name__, "_StorageInfo"): filesystem._StorageInfo,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    ("torch", "Size"): torch.Size,
    ("collections", "OrderedDict"): OrderedDict,
    ("pathlib", "PosixPath"): PosixPath,
}


class _DataUnpickler(pickle._Unpickler):
    """Python's unpickler. Unlike the one in C, it allocates no memory for data that a file announces but does
    not have."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[..., Any]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if (module, name) not in KNOWN_CLASSES:
            raise UnsafeFile(f"it asks for {module}.{name}"[:200])
        return KNOWN_CLASSES[module, name]

    def load_build(self) -> None:
        # Objects may get attributes. Classes and functions may not: the whole process shares them.
        if callable(self.stack[-2]):
            raise UnsafeFile("it changes a class")
        pickle._Unpickler.dispatch[pickle.BUILD[0]](cast(Any, self))

    def refuse(self) -> None:
        raise UnsafeFile("it has an object of a kind that no checkpoint has")

    dispatch[pickle.BUILD[0]] = load_build
    for _code in (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.PERSID, pickle.BINPERSID):
        dispatch[_code[0]] = refuse


def read_metadata(folder: Path) -> metadata.Metadata:
    """The list of a checkpoint's tensors and objects. Raises UnsafeFile where it names anything except data
    in this folder's files, or more data than they have bytes; ValueError for a damaged list, OSError."""
    path = folder / METADATA
    check_regular(path)
    if path.stat().st_size > MOST_METADATA_BYTES:
        raise UnsafeFile(f"{METADATA} has more than {MOST_METADATA_BYTES:,} bytes")
    try:
        found = _DataUnpickler(io.BytesIO(path.read_bytes())).load()
    except UnsafeFile as error:
        raise UnsafeFile(f"{METADATA}: {error}; no code of it was run") from error
    except Exception as error:
        raise ValueError(f"{METADATA} is damaged: {type(error).__name__}") from error
    try:
        _check(found, folder)
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{METADATA} is damaged: {type(error).__name__}") from error
    return found


def _check(found: Any, folder: Path) -> None:
    if not isinstance(found, metadata.Metadata) or not isinstance(found.storage_data, dict):
        raise TypeError
    sizes: dict[str, int] = {}
    for index, place in found.storage_data.items():
        if not isinstance(index, metadata.MetadataIndex) or not isinstance(place, filesystem._StorageInfo):
            raise TypeError
        name = place.relative_path
        if not isinstance(name, str) or Path(name).name != name:
            raise UnsafeFile(f"{METADATA} names a file outside the checkpoint's folder")
        if name not in sizes:
            check_regular(folder / name)
            sizes[name] = (folder / name).stat().st_size
        if place.offset < 0 or place.length < 0 or place.offset + place.length > sizes[name]:
            raise UnsafeFile(f"{METADATA} names bytes that {name} does not have")
        if place.transform_descriptors:
            raise UnsafeFile(f"{METADATA} names a transformation of the data, which is not supported")
    for name, entry in found.state_dict_metadata.items():
        if isinstance(entry, metadata.BytesStorageMetadata):
            continue
        if not isinstance(name, str) or not isinstance(entry, metadata.TensorStorageMetadata):
            raise TypeError
        if not isinstance(entry.size, torch.Size) or not isinstance(entry.properties.dtype, torch.dtype):
            raise TypeError
        numbers = 0
        for chunk in entry.chunks:
            place = found.storage_data[metadata.MetadataIndex(name, chunk.offsets)]
            count = math.prod(chunk.sizes)
            if count * entry.properties.dtype.itemsize > place.length:
                raise UnsafeFile(f"{METADATA} says that {name} is larger than its part of the file")
            numbers += count
        if numbers != math.prod(entry.size):
            raise UnsafeFile(f"{METADATA} says that {name} is larger than its parts")


class DataReader(dcp.FileSystemReader):
    """torch's reader of checkpoint folders, with `read_metadata` above and a check of each part before it is
    read."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> metadata.Metadata:
        found = read_metadata(Path(self.path))
        if not isinstance(found.storage_meta, metadata.StorageMeta):
            found.storage_meta = metadata.StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found

    def read_data(self, plan: dcp.LoadPlan, planner: dcp.LoadPlanner) -> torch.futures.Future[None]:
        for item in plan.items:
            place = self.storage_data[item.storage_index]
            with open(Path(self.path) / place.relative_path, "rb") as file:
                part = cast(IO[bytes], _Part(file, place.offset, place.length))
                refuse_growth(part, place.length)
        return super().read_data(plan, planner)


class DataPlanner(dcp.DefaultLoadPlanner):
    """torch's planner, but the optimizer's numbers are unpickled as data only."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        loaded = torch.load(value, map_location="cpu", weights_only=True)
        name = read_item.dest_index.fqn
        if self.flatten_state_dict:
            set_element(self.original_state_dict, self.mappings[name], loaded)
        else:
            self.state_dict[name] = loaded


class _Part(io.RawIOBase):
    """A range of bytes of a file, as a file."""

    def __init__(self, file: IO[bytes], offset: int, length: int) -> None:
        self._file, self._offset, self._length, self._at = file, offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, self._length)[whence]
        if at < 0:
            raise OSError("before the start")
        self._at = at
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._at)
        data = self._file.read(max(min(len(buffer), self._length - self._at), 0))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
