"""The network of DNAGPT (arXiv 2307.05628): a pre-norm GPT-2 decoder with token and number embeddings, and a token head
and a regression head. Names, shapes and calls are those of the official repository, so its checkpoints load unchanged;
the code is our own.

Shape letters: B batch, T tokens, D width, H heads, K head size, V vocabulary, R rows (B*T).
"""

import hashlib
import math
from typing import Self, cast

import torch
from torch import nn

from dnagpt_fast.batch import PretrainBatch
from dnagpt_fast.model.config import ModelConfig, preset
from dnagpt_fast.model.layers import Block, NumberBlock, Transformer, head, insert_numbers, sum_of
from dnagpt_fast.ops.combined_loss.occurring import OccurringTokens
from dnagpt_fast.ops.combined_loss.op import CombinedLoss, combined_loss


class Network(nn.Module):
    """All of the published model except its method `generate`. Constructor arguments are the official ones.

    Initial values: torch's defaults, and every `c_proj.weight` normal with std 0.02 / sqrt(2 * num_layers).
    """

    products = "float32"
    """What its matrix products are computed in: model/products.py can change it for inference."""
    residual_dtype: torch.dtype | None = None
    """What the residual stream is kept in between its additions under autocast; None: float32, as the weights."""

    def __init__(
        self,
        vocab_size: int = 7,
        max_len: int = 1024,
        num_layers: int = 3,
        num_heads: int = 3,
        embedding_dim: int = 48,
        bias: bool = True,
    ) -> None:
        super().__init__()
        config = ModelConfig(vocab_size, max_len, num_layers, num_heads, embedding_dim, bias)
        self.config = config
        self.vocab_size = vocab_size
        self.max_len = max_len
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.embedding_dim = embedding_dim
        self.transformer = Transformer(config)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, mean=0.0, std=0.02 / math.sqrt(2 * num_layers))
        self.number_embedding = head(1, embedding_dim, embedding_dim, bias)
        self.mlm_head = head(embedding_dim, embedding_dim, vocab_size, bias)
        self.num_regression = head(embedding_dim, embedding_dim, 1, bias)

    @property
    def blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.transformer.h))

    def recompute_blocks(self) -> None:
        """From now on each block keeps only its input and is recomputed in the backward pass (arXiv 1604.06174)."""
        for block in self.blocks:
            block.recompute = True

    def compile_blocks(self) -> None:
        """From now on each block runs compiled by torch.compile: the same code for all blocks, names unchanged."""
        for block in self.blocks:
            # Only the function is compiled: hooks of the module, such as those that gather its weights, stay outside.
            block.body = torch.compile(block.body, fullgraph=True)  # type: ignore[method-assign]

    @classmethod
    def from_config(cls, config: ModelConfig) -> Self:
        return cls(**config.to_dict())

    @classmethod
    def from_name(cls, name: str, vocab_size: int) -> Self:
        """One of the three published shapes. Raises ValueError for an unknown name."""
        return cls.from_config(preset(name, vocab_size))

    def forward(
        self,
        token_ids: torch.Tensor,
        numbers: torch.Tensor | None = None,
        number_loc: torch.Tensor | None = None,
        number_block: NumberBlock | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, T', V); with `number_loc` the pair (numbers_out (B, n, 1), logits).

        token_ids     integer (B, T)
        numbers       float (B, n), or (n,) for a batch of one; T' = T + n * (pieces - 1)
        number_loc    int64 (B, n): positions in the grown sequence that the regression head reads
        number_block  how each row's tokens are cut into pieces, as by `torch.split`: an int (pieces of that size) or a
                      list of sizes, the same for all rows; a tensor (B,) or (B, pieces), or a list of lists, one per
                      row. All numbers are inserted after every piece except the last.

        Raises ValueError for ids outside the vocabulary, more than max_len positions, number arguments that do not fit.
        """
        hidden = self.hidden_states(token_ids, numbers, number_block)
        logits = self.mlm_head(hidden)
        if number_loc is None:
            return logits
        if number_loc.dim() != 2 or number_loc.shape[0] != hidden.shape[0]:
            raise ValueError(
                f"number_loc has shape {tuple(number_loc.shape)}: wanted (B, n) with B = {hidden.shape[0]}"
            )
        rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None]
        return self.num_regression(hidden[rows, number_loc]), logits

    def hidden_states(
        self,
        token_ids: torch.Tensor,
        numbers: torch.Tensor | None = None,
        number_block: NumberBlock | None = None,
        *,
        layer: int = -1,
    ) -> torch.Tensor:
        """Hidden states (B, T', D): the input of the heads (after ln_f), or those of another layer.

        layer  0 the embeddings, i the output of block i, num_layers the output of the last block after ln_f (as Hugging
               Face counts); negative counts from the end. Raises ValueError for a layer out of range.
        """
        layer = self.layer_index(layer)
        x, branch = self.embeddings(token_ids, numbers, number_block), None
        if self.residual_dtype is not None and torch.is_autocast_enabled(x.device.type):
            x = x.to(self.residual_dtype)
        for block in self.transformer.h[:layer]:
            x, branch = block(x, branch)
        if layer < self.num_layers:
            return sum_of(x, branch)
        return self.transformer.ln_f.added(x, branch)[1]

    def content_hash(self) -> str:
        """SHA-256 of the names, dtypes, shapes and bits of all tensors: of equal weights the same, however stored."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def layer_index(self, layer: int) -> int:
        """The layer as 0..num_layers. Raises ValueError for a layer out of range."""
        if not -self.num_layers - 1 <= layer <= self.num_layers:
            raise ValueError(f"layer = {layer}: wanted 0..{self.num_layers}, or negative from the end")
        return layer % (self.num_layers + 1)

    def embeddings(
        self,
        token_ids: torch.Tensor,
        numbers: torch.Tensor | None = None,
        number_block: NumberBlock | None = None,
    ) -> torch.Tensor:
        """Token (and number) embeddings plus position embeddings, (B, T', D). Arguments and errors as in `forward`."""
        self._check_ids(token_ids)
        x = self.transformer.wte(
            token_ids if token_ids.dtype in (torch.int32, torch.int64) else token_ids.long()
        )
        if (numbers is None) != (number_block is None):
            raise ValueError("numbers and number_block go together: only one was given")
        if numbers is not None and number_block is not None:
            x = insert_numbers(x, self.number_embedding, numbers, number_block)
        if x.shape[1] > self.max_len:
            raise ValueError(
                f"{x.shape[1]} positions (tokens and inserted numbers): this model has max_len = {self.max_len}; "
                f"shorten the input or cut it into windows"
            )
        return x + self.transformer.wpe.weight[: x.shape[1]]

    @property
    def last_projection(self) -> nn.Linear:
        """The last Linear of the token head, whose output is the logits: weight (V, D)."""
        return cast(nn.Linear, self.mlm_head[3])

    def head_rows(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states after ln_f (..., D) -> the input of `last_projection` (..., D)."""
        return self.mlm_head[:3](hidden)

    def pretraining_loss(
        self,
        batch: PretrainBatch,
        *,
        order_weight: float = 1.0,
        gc_weight: float = 0.01,
        z_loss: float = 0.0,
        base_level: float = 0.0,
        k: int | None = None,
        occurring: OccurringTokens | None = None,
    ) -> CombinedLoss:
        """The three pre-training losses of a batch and their weighted sum (see ops.combined_loss).

        `num_regression` predicts the GC fraction from the hidden state at `batch.gc_position` (`<M>`).
        z_loss, base_level, k, occurring: as in ops.combined_loss.
        """
        hidden = self.hidden_states(batch.token_ids)
        last = self.last_projection
        return combined_loss(
            self.head_rows(hidden).flatten(0, 1),
            last.weight,
            batch.targets.flatten(),
            bias=last.bias,
            row_kind=batch.row_kind.flatten(),
            gc_prediction=self.num_regression(hidden[:, batch.gc_position]).squeeze(-1),
            gc_target=batch.gc_target,
            gc_mask=batch.gc_mask,
            order_weight=order_weight,
            gc_weight=gc_weight,
            z_loss=z_loss,
            base_level=base_level,
            k=k,
            occurring=occurring,
            row_weight=None if batch.row_weight is None else batch.row_weight.flatten(),
            return_log_probs=True,
        )

    def _check_ids(self, token_ids: torch.Tensor) -> None:
        if token_ids.dim() != 2 or token_ids.is_floating_point() or token_ids.dtype == torch.bool:
            raise ValueError(
                f"token_ids is {token_ids.dtype} {tuple(token_ids.shape)}: wanted an integer tensor (B, T)"
            )
        # Reading values would wait for a CUDA stream, and is impossible while compiling or for a FakeTensor.
        if (
            token_ids.device.type != "cpu"
            or torch.compiler.is_compiling()
            or type(token_ids) is not torch.Tensor
        ):
            return
        if token_ids.numel() == 0:
            return
        low, high = (int(value) for value in torch.aminmax(token_ids.long()))
        if low < 0 or high >= self.vocab_size:
            raise ValueError(
                f"token ids {low}..{high}: this model's vocabulary has ids 0..{self.vocab_size - 1}"
            )
