"""How the C library keeps the host's memory between the tensors of one step and the next."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h
RETURNED_BYTES = 2**20


def return_freed_tensors() -> bool:
    """From now on a freed block of RETURNED_BYTES or more goes back to the system at once. False without glibc.

    By itself glibc soon keeps blocks of up to 32 MiB in one heap, where the activations of a training step and its
    gradients, which live and die in different order, leave holes for each other: a fifth of a step's peak.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(
        library.mallopt(_M_MMAP_THRESHOLD, RETURNED_BYTES)
        and library.mallopt(_M_TRIM_THRESHOLD, RETURNED_BYTES)
    )
