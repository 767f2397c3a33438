"""A tiny model whose context matters: small output projections hide a cache or a mask that is not used."""

from dnagpt_fast.model.dnagpt import DNAGPT
from tests.tiny import load_tiny


def strong_model(name: str = "tiny_nobias") -> DNAGPT:
    """The small output projections of a new model add so little to a token's own embedding, and biases so much to every
    token, that what other tokens say hardly shows; so the ones are made larger and the others smaller."""
    model = load_tiny(name).model()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("attn.c_proj.weight"):
            parameter.data *= 40
        elif parameter_name.endswith("bias"):
            parameter.data *= 0.1
    return model
