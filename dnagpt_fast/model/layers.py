"""The layers of DNAGPT: attention, MLP, block, heads and the insertion of numbers."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from dnagpt_fast.batch import on_device
from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.ops.attention.op import attention_packed
from dnagpt_fast.ops.linear import dense
from dnagpt_fast.ops.mlp.op import mlp
from dnagpt_fast.ops.residual_norm.op import residual_norm

NumberBlock = int | Sequence[int] | Sequence[Sequence[int]] | torch.Tensor


class Linear(nn.Linear):
    """nn.Linear with ops.linear.dense."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return dense(x, self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm that computes in float32 if its input is float32, also with weights gathered in bfloat16."""

    def added(self, x: torch.Tensor, branch: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """x + branch and its norm, by ops.residual_norm; without a branch x and its norm."""
        if branch is None:
            return x, self(x)
        return residual_norm(x, branch, self.weight, self.bias, eps=self.eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float32 or self.weight.dtype == torch.float32:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x, self.normalized_shape, self.weight.float(), bias, self.eps)


class CausalSelfAttention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.c_attn = Linear(config.embedding_dim, 3 * config.embedding_dim, bias=config.bias)
        self.c_proj = Linear(config.embedding_dim, config.embedding_dim, bias=config.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)"""
        return self.c_proj(merge_heads(attention_packed(self.projection(x))))

    def projection(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> q, k, v in one (B, T, 3, H, K)"""
        B, T, D = x.shape
        return self.c_attn(x).view(B, T, 3, self.num_heads, D // self.num_heads)

    def heads(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, T, D) -> q, k, v, each (B, H, T, K)"""
        q, k, v = self.projection(x).permute(2, 0, 3, 1, 4)
        return q, k, v


def merge_heads(x: torch.Tensor) -> torch.Tensor:
    """(B, H, T, K) -> (B, T, D)"""
    B, H, T, K = x.shape
    return x.transpose(1, 2).reshape(B, T, H * K)


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.embedding_dim, 4 * config.embedding_dim, bias=config.bias)
        self.c_proj = Linear(4 * config.embedding_dim, config.embedding_dim, bias=config.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        up, down = self.c_fc, self.c_proj
        if type(up) is Linear and type(down) is Linear:
            return mlp(x, up.weight, down.weight, up_bias=up.bias, down_bias=down.bias)
        # an adapter (LoRA) that replaces one of them needs its input
        return down(F.gelu(up(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # The order of construction is the official one, so that a seed gives the same initial values.
        self.attn = CausalSelfAttention(config)
        self.mlp = MLP(config)
        self.ln_1 = LayerNorm(config.embedding_dim, bias=config.bias)
        self.ln_2 = LayerNorm(config.embedding_dim, bias=config.bias)
        self.recompute = False

    def forward(
        self, x: torch.Tensor, branch: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The residual stream x (B, T, D) and the last branch of the block before, which has yet to be added to it ->
        the same of this block: its output is their sum. So each addition is made together with the norm after it.

        With `recompute` only x + branch is kept, and the backward pass recomputes the rest.
        """
        if self.recompute and torch.is_grad_enabled():
            made = checkpoint(self.body, sum_of(x, branch), None, use_reentrant=False)
            return cast("tuple[torch.Tensor, torch.Tensor]", made)
        return self.body(x, branch)

    def body(self, x: torch.Tensor, branch: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        x, h = self.ln_1.added(x, branch)
        x, h = self.ln_2.added(x, self.attn(h))
        return x, self.mlp(h)


def sum_of(x: torch.Tensor, branch: torch.Tensor | None) -> torch.Tensor:
    """The residual stream after its last branch, in the stream's dtype."""
    return x if branch is None else (x + branch).to(x.dtype)


class Transformer(nn.Module):
    """Embeddings, blocks and last norm; `Network.embeddings` and `Network.hidden_states` call them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.embedding_dim)
        self.wpe = nn.Embedding(config.max_len, config.embedding_dim)
        self.h = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.ln_f = LayerNorm(config.embedding_dim, bias=config.bias)


def head(d_in: int, d: int, d_out: int, bias: bool) -> nn.Sequential:
    """The form of the two heads and of the number input: Linear, SiLU, LayerNorm, Linear."""
    return nn.Sequential(
        nn.Linear(d_in, d, bias=bias), nn.SiLU(), nn.LayerNorm(d, bias=bias), nn.Linear(d, d_out, bias=bias)
    )


def insert_numbers(
    x: torch.Tensor, number_embedding: nn.Module, numbers: torch.Tensor, number_block: NumberBlock
) -> torch.Tensor:
    """Token embeddings (B, T, D) -> (B, T', D), with number embeddings between the pieces; see `Network.forward`."""
    B, T, _ = x.shape
    if numbers.dim() == 1 and B == 1:
        numbers = numbers[None]
    if numbers.dim() != 2 or numbers.shape[0] != B:
        raise ValueError(f"numbers has shape {tuple(numbers.shape)}: wanted (B, n) with B = {B}")
    n = numbers.shape[1]
    # For each row, the source of each position of the grown sequence: 0..T-1 the tokens, T..T+n-1 the numbers.
    source = []
    for sizes in _piece_sizes(number_block, B, T):
        row: list[int] = []
        start = 0
        for piece, size in enumerate(sizes):
            row += [*(range(T, T + n) if piece else ()), *range(start, start + size)]
            start += size
        source.append(row)
    if len({len(row) for row in source}) != 1:
        raise ValueError(
            "number_block cuts the rows into different numbers of pieces, so they would differ in length"
        )
    embedded = number_embedding(numbers.to(x.dtype).unsqueeze(-1))
    both = torch.cat((x, embedded), dim=1)
    index = on_device(torch.tensor(source), x.device)
    return both.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))


def _piece_sizes(number_block: NumberBlock, B: int, T: int) -> list[list[int]]:
    """Sizes of each row's pieces; number_block is explained in `Network.forward`."""
    if isinstance(number_block, torch.Tensor):
        per_row = number_block.tolist()
        rows = [per_row] * B if isinstance(per_row, int) else per_row
    elif isinstance(number_block, int):
        rows = [number_block] * B
    else:
        listed = list(number_block)
        rows = listed if any(not isinstance(item, int) for item in listed) else [listed] * B
    if len(rows) != B:
        raise ValueError(f"number_block is for {len(rows)} rows: the batch has {B}")
    return [_sizes_of_row(row, T) for row in rows]


def _sizes_of_row(block: int | Sequence[int], T: int) -> list[int]:
    if isinstance(block, int):
        if block < 1:
            raise ValueError(f"number_block = {block}: wanted a positive piece size")
        return [min(block, T - start) for start in range(0, T, block)]
    sizes = [int(size) for size in block]
    if sum(sizes) != T or min(sizes, default=-1) < 0:
        raise ValueError(f"number_block sizes {sizes} do not add up to the {T} tokens of a row")
    return sizes
