"""AdamW in two groups, and the learning rate as a pure function of the step."""

import math
from collections.abc import Callable

import torch
from torch import nn


def build_optimizer(
    model: nn.Module, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over the parameters that require gradients; only the weights of Linear layers decay.

    Embeddings, LayerNorms and biases do not: shrinking them towards nought means nothing for what they stand for.
    """
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) in linear], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in linear], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=lr, betas=betas, eps=eps, fused=True
    )


def warmup_cosine(lr: float, warmup_steps: int, steps: int, min_share: float = 0.0) -> Callable[[int], float]:
    """The rate of step 0 .. steps - 1: up to `lr` in equal parts over the warm-up, then a cosine that reaches
    min_share * lr at the last step. Raises ValueError where the warm-up is longer than the run."""
    if not 0 <= warmup_steps <= steps:
        raise ValueError(f"warm-up of {warmup_steps} steps in a run of {steps}: wanted at most as many")

    def rate(step: int) -> float:
        if step < warmup_steps:
            return lr * (step + 1) / warmup_steps
        progress = (step - warmup_steps + 1) / max(steps - warmup_steps, 1)
        return lr * (min_share + (1 - min_share) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))

    return rate
