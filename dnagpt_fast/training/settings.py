"""Settings from TOML files and overrides as checked dataclasses, and the settings that all runs share."""

import dataclasses
import difflib
import json
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dnagpt_fast.input_files import InputFileError, read_whole_text

_ITEM = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^,]*[^,\s])\s*(?:,|$)""")


class ConfigError(ValueError):
    """A setting that is unknown, misspelt, of a wrong type or out of range."""


@dataclass(frozen=True)
class ModelSettings:
    """The shape of a model with random weights: a published one, changed by the other settings.

    name           dna_gpt0.1b_h, dna_gpt0.1b_m or dna_gpt3b_m
    max_len        positions, in tokens; 0: as published
    num_layers     blocks; 0: as published
    num_heads      attention heads; 0: as published
    embedding_dim  width; 0: as published
    bias           biases in every Linear and LayerNorm; the published models have none
    initial        "composed" (a k-mer's input row is a sum of random vectors, one for each of its sub-k-mers;
                   model/initial_values.py) or "official" (the values that the official code draws for the seed)
    """

    name: str = "dna_gpt0.1b_m"
    max_len: int = 0
    num_layers: int = 0
    num_heads: int = 0
    embedding_dim: int = 0
    bias: bool = False
    initial: str = "composed"


@dataclass(frozen=True)
class VocabularySettings:
    """The k-mers of a model with random weights.

    k        bases of a k-mer; the published models have 6
    dynamic  k-mers of all lengths 1 to k, not only k; true in all published models except dna_gpt0.1b_h
    """

    k: int = 6
    dynamic: bool = True


@dataclass(frozen=True)
class StartSettings:
    """The model that a run starts from.

    path       a run folder, an official checkpoint file, a Hugging Face folder or a packaged model's name; empty:
               random weights in the shape of the sections model and vocabulary, which are ignored when `path` is given
    num_heads  needed for official files of an unpublished shape, which do not store it
    """

    path: str = ""
    num_heads: int = 0


@dataclass(frozen=True)
class AdamWSettings:
    """AdamW.

    lr            the highest learning rate
    beta1, beta2  decay of the two moments
    eps           added to the root of the second moment
    weight_decay  of the weights of Linear layers only
    clip_norm     longest gradient, over all parameters; 0: no clipping
    """

    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 1e-2
    clip_norm: float = 1.0


@dataclass(frozen=True)
class OptimizerSettings(AdamWSettings):
    """The optimizer.

    kind  adamw, or muon: Muon for the matrices of the blocks, AdamW for all other parameters (training/muon.py)
    """

    kind: str = "adamw"


def check_least(config: Any, least: Mapping[str, float]) -> None:
    """Raises ConfigError for a setting, named as `section.key`, that is below its least value, NaN or infinite."""
    for name, low in least.items():
        section, key = name.split(".")
        value = getattr(getattr(config, section), key)
        if not low <= value < float("inf"):
            raise ConfigError(
                f"{name} = {value}: wanted at least {low}" + (", finite" if value > low else "")
            )


def settings_tree(
    cls: type,
    path: str | Path | None,
    overrides: Sequence[str],
    absolute_paths: Callable[[dict[str, Any], Path], None],
) -> dict[str, Any]:
    """The nested settings of a TOML file or of the config.json of a run, changed by `section.key=value` overrides.

    An override's value is read as the type of its setting in `cls`: `start.path=2024-11-25` is a folder,
    `data.region=20` a contig, `task.classes=[0,1]` (or `0,1`) two names. Numbers are written as in TOML.
    absolute_paths(tree, folder) makes the relative paths in a tree absolute: paths in the file are relative
    to the file's folder, paths in overrides to the current one. Raises ConfigError, FileNotFoundError.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            text = read_whole_text(path)
            tree = json.loads(text)["settings"] if Path(path).suffix == ".json" else tomllib.loads(text)
        except InputFileError as error:
            raise ConfigError(str(error)) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # also a number of 5,000 digits
            raise ConfigError(f"{path} cannot be read as settings: {error}") from error
        if not isinstance(tree, dict):
            raise ConfigError(f"{path} cannot be read as settings: they are {tree!r:.40}, wanted sections")
        absolute_paths(tree, Path(path).parent)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}: wanted section.key=value")
        *parents, last = key.strip().split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {override}: {parent} is not a section")
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override}: {'.'.join(parents)} is not a section")
        kind = _kind_of(cls, [*parents, last])
        node[last] = _value(kind, text.strip())
        # here, so that the error names the override and not the file
        _check_override(cls, [*parents, last], node[last], f"--set {override}: ")
    absolute_paths(tree, Path.cwd())
    return tree


def _check_override(cls: type, keys: Sequence[str], value: Any, place: str) -> None:
    """Raises ConfigError for a key that the dataclass does not have, or a value of another type."""
    kind: Any = cls
    for i, key in enumerate(keys):
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            raise ConfigError(f"{place}{'.'.join(keys[:i])} is no section")
        names = [item.name for item in fields(kind)]
        if key not in names:
            raise _unknown(f"{place}unknown key {'.'.join(keys[: i + 1])!r}", key, names)
        kind = typing.get_type_hints(kind)[key]
    _convert(kind, value, place, ".".join(keys))


def _unknown(what: str, key: str, known: Iterable[str]) -> ConfigError:
    guess = difflib.get_close_matches(key, list(known), 1)
    meant = f"; did you mean {guess[0]}?" if guess else ""
    return ConfigError(f"{what}: the known ones are {', '.join(known)}{meant}")


def settings_of_run(run: Path) -> Path:
    """The config.json of a run folder. Raises ConfigError where there is none."""
    path = run / "config.json"
    if not path.is_file():
        raise ConfigError(f"{run} holds no run: it has no config.json. Wanted the folder that --out named")
    return path


def from_tree(cls: type, tree: dict[str, Any], where: str = "", prefix: str = "") -> Any:
    """A settings dataclass from the nested dicts of a TOML file or config.json. Raises ConfigError."""
    place = f"{where}: " if where else ""
    known = {item.name: item for item in fields(cls)}
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in tree.items():
        if key not in known:
            raise _unknown(f"{place}unknown key {prefix + key!r}", key, known)
        values[key] = _convert(hints[key], value, place, prefix + key)
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{place}{error}") from error


def _convert(kind: Any, value: Any, place: str, key: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{place}{key} = {value!r}: wanted a section of settings")
        return from_tree(kind, value, place.removesuffix(": "), key + ".")
    if isinstance(kind, types.GenericAlias):
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{place}{key} = {value!r}: wanted a list")
        element = typing.get_args(kind)[0]
        return tuple(_convert(element, item, place, f"{key}[{i}]") for i, item in enumerate(value))
    if type(value) is int and kind in (int, float) and abs(value) >= 1 << 63:
        raise ConfigError(f"{place}{key} is a number of {len(str(value))} digits: wanted one below 2^63")
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(kind, types.UnionType) and type(value) in typing.get_args(kind):
        return value
    if kind is str and type(value) is int:  # class 1, contig 20
        return str(value)
    if type(value) is not kind:
        wanted = " or ".join(one.__name__ for one in typing.get_args(kind) or (kind,))
        raise ConfigError(f"{place}{key} = {value!r}: wanted {wanted}, got {type(value).__name__}")
    return value


def _kind_of(cls: type, keys: Sequence[str]) -> Any:
    """Type of the setting `section.key`; None if the dataclass does not have it."""
    kind: Any = cls
    for key in keys:
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        kind = hints.get(key)
    return kind


def _value(kind: Any, text: str) -> Any:
    """The text of an override as a value of this type. Text that does not fit stays text, which from_tree refuses."""
    if kind is str:
        return _unquoted(text)
    if isinstance(kind, types.GenericAlias):
        bare = text.removeprefix("[").removesuffix("]") if text.startswith("[") else text
        if typing.get_args(kind)[0] is str:
            items = _ITEM.findall(bare)
            return [_unquoted(item) for item in items]
        return _toml(text, _toml(f"[{text}]", text))
    if bool in (kind, *typing.get_args(kind)) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind is float and re.fullmatch(r"[+-]?(\.[0-9]+|[0-9]+\.)([eE][+-]?[0-9]+)?", text):
        return float(text)  # `.5` and `5.`, which TOML does not accept
    return _toml(text, text)


def _unquoted(text: str) -> str:
    value = _toml(text, text) if text[:1] in ("'", '"') else text
    return value if isinstance(value, str) else text


def _toml(text: str, otherwise: Any) -> Any:
    """The text as one TOML value, or `otherwise`."""
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return otherwise
    return found["value"] if len(found) == 1 else otherwise
