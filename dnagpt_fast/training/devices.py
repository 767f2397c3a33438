"""The choice of device and dtype for runs, commands and the official script."""

import dataclasses
import subprocess
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from dnagpt_fast.training.run_folder import settings_of
from dnagpt_fast.training.settings import ConfigError

if TYPE_CHECKING:
    from dnagpt_fast.training.checkpoint import Checkpoint

Config = TypeVar("Config")
AUTO = "auto"
# Compiling the blocks takes about half a minute; shorter runs would not get it back.
COMPILED_FROM_STEPS = 1000


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


def with_precision(config: Config, device: torch.device, start: "Checkpoint | None" = None) -> Config:
    """The settings with run.precision = "auto" replaced by what it means: that of the checkpoint from which the run
    goes on, on whatever device; in a new run bf16 on a CUDA device that multiplies it, otherwise fp32."""
    settings: Any = config
    if settings.run.precision != AUTO:
        return config
    if start is not None:
        precision = settings_of(start, type(settings)).run.precision
    else:
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(False) else "fp32"
    run = dataclasses.replace(settings.run, precision=precision)
    changed: Config = dataclasses.replace(settings, run=run)
    return changed


def compiles(wanted: bool | str, device: torch.device, steps: int) -> tuple[bool, str]:
    """Whether the blocks are compiled, and why, for the log. wanted: true, false or "auto"."""
    if isinstance(wanted, bool):
        return wanted, f"parallel.compile_blocks = {str(wanted).lower()}"
    if device.type != "cuda":
        return False, f"on {device.type}"
    if steps < COMPILED_FROM_STEPS:
        return False, f"in a run of fewer than {COMPILED_FROM_STEPS:,} steps"
    fault = compiler_fault(device)
    return not fault, f"torch.compile does not work here: {fault}" if fault else "on CUDA"


def compiler_fault(device: torch.device) -> str:
    """ "" if torch.compile works for this device, otherwise the first line of its error."""

    @torch.compile(fullgraph=True)
    def tried(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x) + x

    # A compiler, a header or a library is missing, or versions do not fit; torch's own errors are RuntimeErrors.
    try:
        tried(torch.ones(64, device=device))
    except (RuntimeError, OSError, ImportError, AttributeError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    return ""
