"""The models that the package itself carries: NAME.safetensors and NAME.json under data/models, by name.

NAME.json holds the file's SHA-256 and what the model card says in numbers. Nothing here needs a network.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnagpt_fast.input_files import sha256_of

FOLDER = Path(__file__).parents[1] / "data" / "models"


@dataclass(frozen=True)
class PackagedModel:
    """name, file: of the weights. about: one line. facts: NAME.json as a whole."""

    name: str
    file: Path
    about: str
    facts: dict[str, Any]


def packaged_models(folder: Path = FOLDER) -> dict[str, PackagedModel]:
    """The models of this build by name; none where it was built without them."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        facts = json.loads(path.read_text())
        found[path.stem] = PackagedModel(path.stem, path.with_suffix(".safetensors"), facts["about"], facts)
    return found


def is_packaged(text: str | Path) -> bool:
    """Whether a model is meant by its packaged name: such a file or folder of that name goes before."""
    return not Path(text).exists() and str(text) in packaged_models()


def packaged_file(name: str) -> Path:
    """The weights of a packaged model, held against their hash. Raises FileNotFoundError for another name, listing the
    right ones, and CheckpointError for a file that is damaged."""
    from dnagpt_fast.weights.official import (
        CheckpointError,  # here, because names are asked for without torch
    )

    models = packaged_models()
    if name not in models:
        raise FileNotFoundError(f"no packaged model {name!r}: {known_names()}")
    model = models[name]
    if not model.file.is_file():
        raise CheckpointError(f"{model.file} is missing: install dnagpt-fast anew")
    found = sha256_of(model.file)
    if found != model.facts["sha256"]:
        raise CheckpointError(
            f"{model.file} has SHA-256 {found}, wanted {model.facts['sha256']}: install dnagpt-fast anew"
        )
    return model.file


def known_names() -> str:
    """What a message says of the right names."""
    names = ", ".join(packaged_models())
    return f"this build carries {names}" if names else "this build carries none (DNAGPT_FAST_MODELS=0)"
