"""Loads published checkpoints: torch files whose tensors have the official names.

A published file is a state dict, or a dict that has one under `model`; names may have a `module.` prefix. Vocabulary,
max_len, depth, width and bias are read from the shapes. Loading is strict: missing or unexpected tensors and wrong
shapes are errors, and the error names them.
"""

import re
from pathlib import Path
from typing import Any

import torch

from dnagpt_fast.input_files import GZIP_MAGIC, check_file
from dnagpt_fast.model.config import PRESETS, ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.shapes_only import shapes_only
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.training.tensor_files import StateDict
from dnagpt_fast.training.torch_files import (
    CheckpointError,
    UnsafeFile,
    cause,
    load_tensors,
    reason,
    refuse_expanded,
)

SEQUENCES = (b">", b"##", GZIP_MAGIC, b"\x43\x27\x41\x1a", b"\x1a\x41\x27\x43")
"""How files of sequences begin, the last two .2bit: a user can give one where a model is wanted."""


def load_official(
    path: str | Path,
    *,
    num_heads: int | None = None,
    strict: bool = True,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> tuple[DNAGPT, KmerTokenizer]:
    """The model (in eval mode) and tokenizer of a published checkpoint.

    num_heads  cannot be read from the shapes; None: as in the published model of the same depth and width
    strict     False: unexpected tensors are ignored and missing ones keep their initial values
    Raises CheckpointError (a ValueError) that names the fault, FileNotFoundError.
    """
    state = read_state_dict(path)
    config = config_of(state, path, num_heads)
    model = build(config, state, path, strict=strict)
    return model.to(device=device, dtype=dtype).eval(), KmerTokenizer.from_vocab_size(config.vocab_size)


def read_state_dict(path: str | Path) -> StateDict:
    """The tensors of a torch file by their official names, on the CPU. Only tensors are unpickled.

    Raises CheckpointError, FileNotFoundError.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    check_file(path)
    with open(path, "rb") as file:
        if file.read(4).startswith(SEQUENCES):
            raise CheckpointError(
                f"{path} is no model: it begins as FASTA, VCF, .2bit or gzip does. Commands take the model first, then "
                "the sequences"
            )
    try:
        content = load_tensors(path)
    except Exception as error:  # noqa: BLE001 raised anew, at times without torch's text
        raise CheckpointError(f"{path} cannot be read as a torch checkpoint: {reason(error)}") from cause(
            error
        )
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise CheckpointError(f"{path} has no state dict, neither at the top nor under 'model'")
    if not all(isinstance(name, str) for name in content):
        raise CheckpointError(f"{path} holds tensors without names")
    try:
        refuse_expanded(content, path.stat().st_size)
    except UnsafeFile as error:
        raise CheckpointError(f"{path}: {error}") from error
    return {re.sub(r"^(module\.)+", "", name): tensor for name, tensor in content.items()}


def config_of(state: StateDict, path: str | Path, num_heads: int | None = None) -> ModelConfig:
    """The model's shape from its tensors' shapes. Raises CheckpointError if they do not determine it."""

    def shape(name: str, dims: int) -> Any:
        if name not in state:
            raise CheckpointError(f"{path}: no tensor {name}; is this a DNAGPT checkpoint?")
        if state[name].dim() != dims:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(state[name].shape)}: wanted {dims} dimensions"
            )
        return state[name].shape

    vocab_size, width = shape("transformer.wte.weight", 2)
    max_len, _ = shape("transformer.wpe.weight", 2)
    num_layers = layers_in(state, path)
    if num_heads is None:
        heads = {
            c.num_heads for c in PRESETS.values() if (c.num_layers, c.embedding_dim) == (num_layers, width)
        }
        if len(heads) != 1:
            raise CheckpointError(
                f"{path}: {num_layers} layers of width {width} is no published shape, and the tensors do not determine "
                f"the number of heads: give num_heads (for a run: start.num_heads)"
            )
        num_heads = heads.pop()
    bias = "transformer.ln_f.bias" in state
    try:
        return ModelConfig(vocab_size, max_len, num_layers, num_heads, width, bias)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def layers_in(state: StateDict, path: str | Path) -> int:
    """The number of blocks, from the names of a state dict. Raises CheckpointError if most of them are missing."""
    numbers = {m[1] for name in state if (m := re.match(r"transformer\.h\.(\d+)\.", name))}
    missing = [str(i) for i in range(len(numbers)) if str(i) not in numbers]
    absent = missing[0] if missing else str(len(numbers))
    # Python refuses to convert thousands of digits to a number, and a model of millions of blocks takes hours to build.
    if not numbers or max(map(len, numbers)) > 6 or max(map(int, numbers)) >= _most_blocks(len(numbers)):
        raise CheckpointError(f"{path}: no tensor transformer.h.{absent}.*; is this a DNAGPT checkpoint?")
    return max(map(int, numbers)) + 1


def _most_blocks(found: int) -> int:
    """The largest model that is built, to name the missing tensors, for a file that has tensors of `found` blocks."""
    return 2 * found + 8


def build(config: ModelConfig, state: StateDict, path: str | Path, *, strict: bool = True) -> DNAGPT:
    """A model of this shape with these tensors. `path` is for messages. Raises CheckpointError."""
    wanted, missing = refuse_misfits(config, state, path, strict=strict)
    if missing:
        model = DNAGPT.from_config(config)
        model.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)
        return model
    with shapes_only():
        model = DNAGPT.from_config(config)
    model.load_state_dict({name: state[name] for name in wanted}, strict=True, assign=True)
    return model


def refuse_misfits(
    config: ModelConfig, state: StateDict, path: str | Path, *, strict: bool = True
) -> tuple[list[str], list[str]]:
    """The names of a model's tensors, and of those that are missing in `state`, of which only names and shapes are
    used. Raises CheckpointError where they are not this model's; strict: as in `load_official`."""
    # Building takes time per block, even without weights: refuse many more blocks than the file has tensors for.
    found = layers_in(state, path)
    if config.num_layers > _most_blocks(found):
        raise CheckpointError(
            f"{path} does not fit the model: num_layers is {config.num_layers}, but it holds {found} blocks"
        )
    with shapes_only():
        wanted = DNAGPT.from_config(config).state_dict()
    missing = sorted(set(wanted) - set(state))
    unexpected = sorted(set(state) - set(wanted))
    wrong_shapes = [
        f"{name} is {tuple(state[name].shape)}, wanted {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    faults = [
        f"{kind} {', '.join(names)}"
        for kind, names in (
            ("missing:", missing),
            ("unexpected:", unexpected),
            ("wrong shape:", wrong_shapes),
        )
        if names and (strict or kind == "wrong shape:")
    ]
    if faults:
        raise CheckpointError(f"{path} does not fit the model. " + "; ".join(faults))
    return list(wanted), missing
