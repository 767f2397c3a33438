"""Which weights a fine-tuning run trains: all, all except frozen ones, or low-rank additions by peft (LoRA,
arXiv 2106.09685)."""

from typing import Any

import torch
from torch import nn

from dnagpt_fast.extras import need
from dnagpt_fast.finetune.settings import ConfigError, TuningSettings
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.weights.start import without_lora

USED_HEADS = {
    "classification": ("mlm_head",),
    "regression": ("num_regression", "number_embedding"),
    "generation": ("mlm_head",),
    "tagging": ("mlm_head",),
}


class Adaptation:
    """A model prepared for fine-tuning. `state()` gives the weights to keep, by their official names."""

    def __init__(self, model: DNAGPT, task: str, settings: TuningSettings, *, numbers: int = 0) -> None:
        """Changes `model` in place. Raises ConfigError for settings that do not fit it."""
        self.model = model
        if settings.freeze_blocks > model.num_layers:
            raise ConfigError(
                f"tuning.freeze_blocks = {settings.freeze_blocks}: the model has {model.num_layers}"
            )
        self._lora: Any = None
        if settings.method == "lora":
            self._lora = _add_lora(model, settings)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                continue
            head = name.split(".")[0]
            if head != "transformer":
                used = head in USED_HEADS[task] and (head != "number_embedding" or numbers > 0)
                parameter.requires_grad_(used)
            elif settings.method == "full":
                parameter.requires_grad_(not _frozen(name, settings))
        if settings.method == "lora":
            for block in model.transformer.h[: settings.freeze_blocks]:
                block.requires_grad_(False)

    @property
    def trained(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def state(self) -> dict[str, torch.Tensor]:
        """A copy of the weights by official names, on the CPU; the low-rank additions are added to them."""
        weights = without_lora(self.model.state_dict())
        state = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        if self._lora is not None:
            # not peft's merge and unmerge: they would leave rounding errors in the weights that are being
            # trained
            layers = need("peft.tuners.lora").LoraLayer
            for name, module in self.model.named_modules():
                if isinstance(module, layers):
                    state[f"{name}.weight"] += module.get_delta_weight("default").detach().cpu()
        return state


def _frozen(name: str, settings: TuningSettings) -> bool:
    parts = name.split(".")
    if parts[1] in ("wte", "wpe"):
        return settings.freeze_embeddings
    return parts[1] == "h" and int(parts[2]) < settings.freeze_blocks


def _add_lora(model: DNAGPT, settings: TuningSettings) -> Any:
    lora = need("peft.tuners.lora")
    names = {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    unknown = sorted(set(settings.lora_targets) - names)
    if unknown or not settings.lora_targets:
        raise ConfigError(
            f"tuning.lora_targets = {settings.lora_targets}: wanted some of c_attn, c_proj, c_fc"
        )
    config = lora.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.lora_targets),
    )
    return lora.LoraModel(model, config, "default")
