"""Inference on the CPU with matrix products in bfloat16 or int8; all other operations stay in float32."""

from typing import TypeVar, cast

import torch
from torch import nn

from dnagpt_fast.model.inference import PLAIN
from dnagpt_fast.model.network import Network
from dnagpt_fast.ops.linear_bfloat16 import linear_bfloat16
from dnagpt_fast.ops.linear_int8 import linear_int8, quantize_rows
from dnagpt_fast.ops.traits import refuse_products

Model = TypeVar("Model", bound=Network)


class _RoundedLinear(nn.Module):
    """A linear layer without a gradient; `weight` is what its products stand for, in float32, made at each use."""

    bias: torch.Tensor | None

    @property
    def weight(self) -> torch.Tensor:
        raise NotImplementedError

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 (..., D_in) -> (..., D_out)"""
        if torch.is_grad_enabled() and x.requires_grad:
            raise RuntimeError("bfloat16 and int8 products have no gradient: train the float32 model")
        return self.product(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)


class BFloat16Linear(_RoundedLinear):
    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("rounded", layer.weight.detach().bfloat16())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @property
    def weight(self) -> torch.Tensor:
        return self.get_buffer("rounded").float()

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        return linear_bfloat16(rows, self.get_buffer("rounded"), self.bias)


class Int8Linear(_RoundedLinear):
    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        quantized, scale = quantize_rows(layer.weight.detach())
        self.register_buffer("quantized", quantized)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @property
    def weight(self) -> torch.Tensor:
        return self.get_buffer("quantized").float() * self.get_buffer("scale")

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        return linear_int8(rows, self.get_buffer("quantized"), self.get_buffer("scale"), self.bias)


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
