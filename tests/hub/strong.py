"""A tiny model with a strong effect of context, so that tests notice a cache or a mask that is not used."""

from dnagpt_fast.model.dnagpt import DNAGPT
from tests.tiny import load_tiny


def strong_model(name: str = "tiny_nobias") -> DNAGPT:
    """In a new model the output projections are small and the biases large, so other tokens hardly affect a
    token. Here the projections are made larger and the biases smaller."""
    model = load_tiny(name).model()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("attn.c_proj.weight"):
            parameter.data *= 40
        elif parameter_name.endswith("bias"):
            parameter.data *= 0.1
    return model
