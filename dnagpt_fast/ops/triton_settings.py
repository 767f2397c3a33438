"""What all Triton ops share: the card they are compiled for and the dtype they add up in."""

import functools

import torch
from torch import Tensor


@torch.compiler.assume_constant_result
def architecture(device: torch.device) -> str:
    """ "sm_90", "gfx942": the card. Tensors on the CPU, that is in the interpreter, are taken for sm_80's."""
    return "sm_80" if device.type == "cpu" else _card(device.index)


@functools.cache
def _card(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip:
        return str(properties.gcnArchName).partition(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def accumulator(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32
