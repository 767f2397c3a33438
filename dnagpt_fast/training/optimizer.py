"""The optimizer with its groups of parameters, and the learning rate as a pure function of the step."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from dnagpt_fast.training.adamw import AdamW
from dnagpt_fast.training.muon import MuonWithAdamW


class ShardedAdamW(AdamW):
    """torch's AdamW, which updates this process's parts of sharded parameters as plain tensors.

    So `grad_scale` and `found_inf` may be plain tensors too, and no part is taken through DTensor's dispatch.
    """

    def _init_group(self, group: dict[str, Any], *lists: Any) -> bool:
        has_complex: bool = super()._init_group(group, *lists)
        for tensors in lists:
            tensors[:] = [x.to_local() if isinstance(x, DTensor) else x for x in tensors]
        return has_complex


def build_optimizer(
    model: nn.Module,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    muon: Mapping[nn.Parameter, int] | None = None,
) -> torch.optim.AdamW:
    """AdamW over the parameters that require gradients. Only the weights of Linear layers decay; embeddings,
    LayerNorms and biases do not.

    muon: matrices that take Muon's step instead, with the number of matrices stacked in each
    (training/muon.py).
    """
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hidden = {id(parameter) for parameter in muon or {}}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if id(p) in hidden], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in linear - hidden], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in linear | hidden], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if muon is not None:
        return MuonWithAdamW(groups, pieces=muon, lr=lr, betas=betas, eps=eps, fused=True)
    return ShardedAdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


def warmup_cosine(lr: float, warmup_steps: int, steps: int, min_share: float = 0.0) -> Callable[[int], float]:
    """step 0 .. steps - 1 -> rate: a linear increase to `lr` over the warm-up, then a cosine that reaches
    min_share * lr at the last step. Raises ValueError where the warm-up is longer than the run."""
    if not 0 <= warmup_steps <= steps:
        raise ValueError(f"warm-up of {warmup_steps} steps in a run of {steps}: wanted at most as many")

    def rate(step: int) -> float:
        if step < warmup_steps:
            return lr * (step + 1) / warmup_steps
        progress = (step - warmup_steps + 1) / max(steps - warmup_steps, 1)
        return lr * (min_share + (1 - min_share) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))

    return rate


def warmup_stable_decay(
    lr: float, warmup_steps: int, decay_steps: int, steps: int, min_share: float = 0.0
) -> Callable[[int], float]:
    """step 0 .. steps - 1 -> rate: a linear increase to `lr` over the warm-up, then constant, and over the
    last decay_steps a decrease to min_share * lr by 1 - sqrt(progress) (arXiv 2405.18392). Raises ValueError
    where warm-up and decay are longer than the run."""
    if not (warmup_steps >= 0 and decay_steps >= 0 and warmup_steps + decay_steps <= steps):
        raise ValueError(
            f"warm-up of {warmup_steps} and decay of {decay_steps} steps in a run of {steps}: wanted at most as many"
        )

    def rate(step: int) -> float:
        if step < warmup_steps:
            return lr * (step + 1) / warmup_steps
        if step < steps - decay_steps:
            return lr
        progress = (step - (steps - decay_steps) + 1) / decay_steps
        return lr * (min_share + (1 - min_share) * (1 - math.sqrt(min(progress, 1.0))))

    return rate
