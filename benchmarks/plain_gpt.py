"""A GPT of plain torch parts with the shape of a DNAGPT: the peer of the training step on a GPU.

It has what a user would write today: SDPA, torch's linear layers without biases, cross-entropy over logits in memory,
and torch.compile over the whole. It learns next tokens only, which is less work than our three objectives.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from dnagpt_fast.model.config import ModelConfig


class PlainBlock(nn.Module):
    """Pre-norm attention and MLP of a GPT-2."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, bias = config.embedding_dim, config.bias
        self.heads = config.num_heads
        self.before_attention, self.before_mlp = (nn.LayerNorm(width, bias=bias) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
        self.up, self.down = nn.Linear(width, 4 * width, bias=bias), nn.Linear(4 * width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)"""
        B, T, D = x.shape
        qkv = self.qkv(self.before_attention(x)).view(B, T, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(o.transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.before_mlp(x)), approximate="tanh"))


class PlainGPT(nn.Module):
    """Embeddings, blocks, the two-layer token head of DNAGPT, and the mean loss of the next tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, bias = config.embedding_dim, config.bias
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_len, width)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(width, bias=bias)
        self.head = nn.Sequential(
            nn.Linear(width, width, bias=bias), nn.SiLU(), nn.LayerNorm(width, bias=bias),
            nn.Linear(width, config.vocab_size, bias=bias),
        )  # fmt: skip

    def forward(self, token_ids: Tensor, targets: Tensor) -> Tensor:
        """token_ids, targets (B, T) -> 0-d loss in nats per token"""
        x = self.tokens(token_ids) + self.positions.weight[: token_ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), targets.flatten())
