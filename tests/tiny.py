"""The two small models with recorded weights and answers of the official code:
tests/data/tiny_*.safetensors."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT

DATA = Path(__file__).parent / "data"
NAMES = ("tiny_bias", "tiny_nobias")


@dataclass
class Tiny:
    config: ModelConfig
    state: dict[str, torch.Tensor]
    golden: dict[str, torch.Tensor]

    def model(self) -> DNAGPT:
        model = DNAGPT.from_config(self.config)
        model.load_state_dict(self.state, strict=True)
        return model.eval()


def load_tiny(name: str) -> Tiny:
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        settings = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 safe_open is no dict
    config = ModelConfig(
        **{key: int(value) for key, value in settings.items() if key != "bias"},
        bias=settings["bias"] == "True",
    )
    parts = {
        part: {
            key.removeprefix(f"{part}."): value
            for key, value in tensors.items()
            if key.startswith(f"{part}.")
        }
        for part in ("model", "golden")
    }
    return Tiny(config, parts["model"], parts["golden"])
