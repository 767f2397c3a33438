"""Linear layers of inference whose products are in bfloat16 or int8; model/products.py puts them into a model."""

from typing import Self

import torch
from torch import nn

from dnagpt_fast.ops.linear_bfloat16 import linear_bfloat16
from dnagpt_fast.ops.linear_int8 import linear_int8, quantize_rows


class RoundedLinear(nn.Module):
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
        y = self.product(x.reshape(-1, x.shape[-1]))
        return y.view(*x.shape[:-1], y.shape[1])

    def rows(self, chosen: torch.Tensor) -> Self:
        """The layer with some of its outputs, int64 (n,). All its tensors have a row for each output."""
        made = type(self).__new__(type(self))
        nn.Module.__init__(made)
        for name, tensor in self.named_buffers():
            made.register_buffer(name, tensor[chosen])
        if self.bias is None:
            made.register_buffer("bias", None)
        return made


class BFloat16Linear(RoundedLinear):
    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("rounded", layer.weight.detach().bfloat16())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @property
    def weight(self) -> torch.Tensor:
        return self.get_buffer("rounded").float()

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        return linear_bfloat16(rows, self.get_buffer("rounded"), self.bias)


class Int8Linear(RoundedLinear):
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
