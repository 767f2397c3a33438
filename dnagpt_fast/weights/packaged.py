"""The models that are part of the package, by name: NAME.safetensors and NAME.json in data/models.

NAME.json has the file's SHA-256 and the figures of the model card. Nothing here needs a network.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnagpt_fast.input_files import sha256_of

FOLDER = Path(__file__).parents[1] / "data" / "models"


@dataclass(frozen=True)
class PackagedModel:
    """file: the weights. about: one line. facts: the content of NAME.json."""

    name: str
    file: Path
    about: str
    facts: dict[str, Any]


def packaged_models(folder: Path = FOLDER) -> dict[str, PackagedModel]:
    """The models of this build by name; empty if it was built without them."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        facts = json.loads(path.read_text())
        found[path.stem] = PackagedModel(path.stem, path.with_suffix(".safetensors"), facts["about"], facts)
    return found


def is_packaged(text: str | Path) -> bool:
    """Whether a text is the name of a packaged model. A file or folder of the same name takes precedence."""
    return not Path(text).exists() and str(text) in packaged_models()


def packaged_file(name: str) -> Path:
    """The weights of a packaged model, after a check of their hash. Raises FileNotFoundError that lists the names, and
    CheckpointError for a damaged file."""
    # imported here, so that listing the names does not import torch
    from dnagpt_fast.weights.official import CheckpointError

    models = packaged_models()
    if name not in models:
        raise FileNotFoundError(f"no packaged model {name!r}: {known_names()}")
    model = models[name]
    if not model.file.is_file():
        raise CheckpointError(f"{model.file} is missing: reinstall dnagpt-fast")
    found = sha256_of(model.file)
    if found != model.facts["sha256"]:
        raise CheckpointError(
            f"{model.file} has SHA-256 {found}, wanted {model.facts['sha256']}: reinstall dnagpt-fast"
        )
    return model.file


def known_names() -> str:
    """The names of the packaged models, as part of a message."""
    names = ", ".join(packaged_models())
    return f"this build has {names}" if names else "this build has none (DNAGPT_FAST_MODELS=0)"
