"""Saves a folder for servers such as vLLM, whose token head is one linear layer where ours has four
layers."""

import copy
from pathlib import Path

import torch

from dnagpt_fast.hub.heads import DNAGPTForCausalLM
from dnagpt_fast.output_files import whole
from dnagpt_fast.training.tensor_files import write_safetensors


def save_for_serving(model: DNAGPTForCausalLM, folder: str | Path) -> None:
    """Writes the trunk with the first three layers of the token head as the base model, and the last as
    `lm_head`.

    vLLM's transformers backend builds the base model of `config.json` and loads `lm_head.weight` into its own layer
    (https://docs.vllm.ai/en/latest/models/supported_models/#writing-custom-models). The number heads are left out, so
    the folder is for serving only: `AutoModelForCausalLM` refuses it. Save the tokenizer beside it. Raises OSError.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    *first, last = model.mlm_head
    tensors = {f"transformer.{name}": tensor for name, tensor in model.transformer.state_dict().items()}
    for place, layer in enumerate(first):
        tensors |= {f"transformer.head.{place}.{name}": t for name, t in layer.state_dict().items()}
    tensors |= {f"lm_head.{name}": tensor for name, tensor in last.state_dict().items()}
    with whole(folder / "model.safetensors") as temporary:
        write_safetensors(temporary, _plain(tensors), {"format": "pt"})
    config = copy.deepcopy(model.config)
    config.head_in_trunk = True
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def _plain(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
