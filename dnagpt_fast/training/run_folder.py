"""The record in a run's folder: library versions, and the changes of settings that resuming refuses."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dnagpt_fast.json_files import MOST_BYTES
from dnagpt_fast.training.settings import ConfigError, from_tree

if TYPE_CHECKING:
    from dnagpt_fast.training.checkpoint import Checkpoint

Settings = TypeVar("Settings")


def settings_of(start: "Checkpoint", cls: type[Settings]) -> Settings:
    """The settings of a checkpoint, as the dataclass `cls`. Raises ConfigError, CheckpointError."""
    path = start.config_path
    return from_tree(cls, part_of(start.config(), "settings", dict, path), str(path))


def part_of(record: dict[str, Any], name: str, kind: type, path: Path) -> Any:
    """An entry of config.json, checked for its type. `path` is for messages. Raises ConfigError."""
    if not isinstance(record.get(name), kind):
        came = f"it is {type(record[name]).__name__}" if name in record else "it is missing"
        raise ConfigError(f"{path}: {name!r}: wanted {kind.__name__}, but {came}: the file is damaged")
    return record[name]


def refused_changes(start: "Checkpoint", config: Any, free: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Settings that differ from the checkpoint's, except those that start with a prefix in `free`."""
    then = settings_of(start, type(config))
    changed = differences(then.to_dict(), config.to_dict())
    return {key: pair for key, pair in changed.items() if not key.startswith(free)}


def raise_if_refused(run: Path, refused: dict[str, tuple[Any, Any]]) -> None:
    """Raises ConfigError naming each setting, or file, with both of its values."""
    if refused:
        text = "; ".join(f"{key} was {_shown(old)}, is {_shown(new)}" for key, (old, new) in refused.items())
        raise ConfigError(f"{run} cannot be resumed with other settings or files: {text}")


def _shown(value: Any) -> str:
    """The value for a message, shortened: a list of held-out ranges may have one for each of 200,000
    contigs."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:150]}... ({len(text):,} characters)"


def record_text(record: dict[str, Any], path: Path) -> str:
    """The content of config.json, the file `path`. Raises ConfigError where it is too large to be read again."""
    text = json.dumps(record, indent=2) + "\n"
    if len(text) > MOST_BYTES:
        raise ConfigError(
            f"{path} would have {len(text):,} bytes, but at most {MOST_BYTES:,} are read: the settings are too long; "
            f"name fewer held-out ranges, or only data.held_out_tail"
        )
    return text


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ in two nested dicts of the same keys."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in old:
        if isinstance(old[key], dict):
            found |= differences(old[key], new[key], f"{prefix}{key}.")
        elif old[key] != new[key]:
            found[prefix + key] = (old[key], new[key])
    return found


# Version of the layout of config.json in runs, checkpoints and converted models.
FORMAT = 1


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that affect the results. A clone that is not installed has no
    version."""
    found = {"python": platform.python_version()}
    for name in ("dnagpt-fast", "torch", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
