"""The choice of device and dtype for runs, commands and the official script."""

import torch

from dnagpt_fast.training.settings import ConfigError


def pick_device(name: str | None, local_rank: int = 0, *, what: str = "run.device") -> torch.device:
    """The device `name`. `auto` and None mean CUDA if there is any, and of several GPUs number `local_rank`.

    name  auto, cpu, cuda or cuda:N
    what  name of the setting or option, for messages
    Raises ConfigError, a ValueError, for another name and for a device that does not exist.
    """
    if name in (None, "auto"):
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, number = str(name).partition(":")
    if kind not in ("cpu", "cuda") or (colon and (kind == "cpu" or not number.isdecimal())):
        raise ConfigError(f"{what} = {name!r}: wanted auto, cpu or cuda")
    if kind == "cpu":
        return torch.device("cpu")
    if torch.version.cuda is None and not torch.cuda.is_available():
        raise ConfigError(
            f"{what} = {name!r}: this torch was built without CUDA; `dnagpt-fast doctor` says more"
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            f"{what} = {name!r}: torch finds no CUDA device here; `dnagpt-fast doctor` says more"
        )
    index, count = int(number) if colon else local_rank, torch.cuda.device_count()
    if index >= count:
        raise ConfigError(
            f"{what} = {name!r}: wanted a CUDA device below {count}, the number of devices here, not {index}"
        )
    return torch.device("cuda", index)


def pick_dtype(name: str | None, *, what: str = "dtype") -> torch.dtype | None:
    """A floating-point dtype by its name in torch; None for None. Raises ConfigError for another name."""
    if name is None:
        return None
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point or dtype.itemsize < 2:
        raise ConfigError(f"{what} = {name!r}: wanted float32, bfloat16, float16 or float64")
    return dtype
