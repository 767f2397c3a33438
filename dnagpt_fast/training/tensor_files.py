"""Writes tensors to files; a full disk or a missing permission is an OSError that names the file."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

StateDict = dict[str, torch.Tensor]


@contextlib.contextmanager
def os_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns errors of the operating system, as safetensors and torch's archives report them, into OSErrors
    about `path`.

    safetensors puts the system's error number into its text. torch reports that its archive has an unexpected
    position; the error of its last write is the context of this exception.
    """
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error
    except RuntimeError as error:
        cause = error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def write_safetensors(path: Path, tensors: StateDict, header: dict[str, str] | None = None) -> None:
    """Raises OSError that names `path`."""
    with os_errors(path):
        save_file(tensors, path, metadata=header)


def write_torch(path: Path, tensors: StateDict) -> None:
    """A torch file, .pth. Raises OSError that names `path`."""
    # With a path instead of a file, torch loses the system's error.
    with os_errors(path), open(path, "wb") as file:
        torch.save(tensors, file)
