"""Inference on the CPU with matrix products in bfloat16 or int8; all other operations stay in float32."""

from typing import TypeVar, cast

import torch
from torch import nn

from dnagpt_fast.model.inference import PLAIN
from dnagpt_fast.model.network import Network
from dnagpt_fast.model.rounded_linear import BFloat16Linear, Int8Linear
from dnagpt_fast.ops.traits import refuse_products

Model = TypeVar("Model", bound=Network)


LAYERS = {"bfloat16": BFloat16Linear, "int8": Int8Linear}


def use_products(model: Model, products: str, *, what: str = "products") -> Model:
    """Changes a float32 CPU model so that the products of its blocks and of its token head are computed in `products`,
    and returns it. Its float32 weights are freed; it can no longer be trained or saved.

    products  float32 (no change), bfloat16 or int8: see ops/linear_bfloat16.py and ops/linear_int8.py
    Everything that runs the model then uses them: embed, score, generate, variants, predictions. Results keep their
    independence of the batch. docs/inference.md has the cost in nats per base.
    Raises ValueError for an unknown name, for a processor without the instructions (the message says how to force
    them), for a model on another device or in another dtype, and for one that was changed before.

    >>> from dnagpt_fast import load_model
    >>> use_products(load_model("dna_gpt6m_m")[0], "float32").products
    'float32'
    """
    refuse_products(products, what)
    if products == "float32":
        return model
    weight = model.transformer.wte.weight
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise ValueError(
            f"{what} = {products!r} is for float32 models on the CPU: this one is {weight.dtype} on {weight.device}; "
            "load it there in float32, or on a GPU with the dtype bfloat16 instead"
        )
    if model.products != "float32":
        raise ValueError(f"{what} = {products!r}: this model has {model.products} products: load it again")
    made = LAYERS[products]
    for part in (model.transformer.h, model.mlm_head):
        for module in list(part.modules()):
            for name, layer in list(module.named_children()):
                if type(layer) in PLAIN:
                    setattr(module, name, made(cast(nn.Linear, layer)))
    model.products = products
    return model.requires_grad_(False).eval()
