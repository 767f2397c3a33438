"""dnagpt_fast: train, fine-tune and use DNAGPT straight from packed 2-bit genomes."""

import importlib
from typing import Any

# Public name -> its module, imported on first use, so that `import dnagpt_fast` does not import torch.
_PUBLIC = {
    "DNAGPT": "model",
    "ModelConfig": "model",
    "KmerTokenizer": "model",
    "load_official": "official",
    "load_model": "weights.forms",
    "load_pretrained": "weights.forms",
    "embed": "model.embed",
    "score": "model.score",
    "variant_scores": "variants.places",
    "attention_weights": "model.attention_maps",
    "generate_sequences": "model.generation",
    "CheckpointError": "official",
    "Genome": "genome",
}
_MODULES = ("ops", "hub")

__all__ = [*_PUBLIC, "ops"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _PUBLIC:
        value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, *_MODULES])
