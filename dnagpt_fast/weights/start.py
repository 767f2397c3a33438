"""The model that a run starts from: an existing model in any form, or a random one."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.initial_values import random_model
from dnagpt_fast.training.run_folder import part_of
from dnagpt_fast.training.settings import ModelSettings, StartSettings, VocabularySettings, from_tree
from dnagpt_fast.vocab import Vocabulary
from dnagpt_fast.weights.forms import config_and_tokenizer, load_model
from dnagpt_fast.weights.official import refuse_misfits

if TYPE_CHECKING:
    from dnagpt_fast.training.checkpoint import Checkpoint


def start_model(
    start: StartSettings, shape: ModelSettings, vocabulary: VocabularySettings, seed: int
) -> tuple[DNAGPT, Vocabulary]:
    """The model of `start.path`, or a random one of this shape, vocabulary and seed. Sets torch's seed in both cases.

    Raises ConfigError, CheckpointError, FileNotFoundError.
    """
    if not start.path:
        new = Vocabulary(vocabulary.k, vocabulary.dynamic)
        return random_model(shape, new, seed), new
    torch.manual_seed(seed)
    model, tokenizer = load_model(start.path, num_heads=start.num_heads or None)
    return model, tokenizer.vocabulary


def start_then(record: dict[str, Any], path: Path) -> StartSettings:
    """The start that a run's record, the file `path`, names. Raises ConfigError."""
    settings = part_of(record, "settings", dict, path)
    start = part_of(settings, "start", dict, path) if "start" in settings else {}
    return from_tree(StartSettings, start, str(path))


def other_start(then: StartSettings, now: StartSettings, sha256: str) -> dict[str, tuple[str, str]]:
    """Whether a resumed run names another start model: {} or the difference, name -> (then, now).

    The weights are compared, not their paths. If the path is the same, nothing is read: the run does not need its start
    model any more, and the file may no longer exist. sha256: of the weights that the run started from.
    Raises CheckpointError, FileNotFoundError.
    """
    if then.path == now.path:
        return {}
    if not (then.path and now.path):
        return {"start.path": (then.path, now.path)}
    model, _ = load_model(now.path, num_heads=now.num_heads or None)
    found = state_hash(model)
    return (
        {} if found == sha256 else {f"the SHA-256 of the weights in {now.path} (start.path)": (sha256, found)}
    )


def resumed_model(found: "Checkpoint") -> tuple[DNAGPT, Vocabulary]:
    """The model and vocabulary of a run that goes on, built once its checkpoint is seen to hold such a one; the caller
    loads the weights. Raises CheckpointError."""
    record = found.config()
    config, tokenizer = config_and_tokenizer(record.get("model"), record.get("vocabulary"), found.config_path)
    refuse_misfits(config, without_lora(found.shapes()), found.path)
    return DNAGPT.from_config(config), tokenizer.vocabulary


def without_lora(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model's own tensors by their official names, of a state dict that may hold peft's low-rank additions too."""
    return {
        name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if ".lora_" not in name
    }


def state_hash(model: DNAGPT) -> str:
    """SHA-256 of all tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
