"""The number of floating-point operations of a DNAGPT model, from its shape alone.

The multiplications and additions of the matrix products are counted, 2 R I O for (R, I) times (I, O), as usual
(Chowdhery et al. 2022, PaLM, appendix B; torch's FlopCounterMode). Norms, activations, softmax and the optimizer are
left out: at width 768 they are under 1 % of the total.

A product y = x W has two products of the same size in its backward pass, dx = dy W^T and dW = x^T dy, and so have the
two products of attention: a training step is exactly three forward passes. Recomputation that saves memory is not
counted.
"""

from dataclasses import dataclass

from dnagpt_fast.model.config import ModelConfig

BACKWARD_PER_FORWARD = 2


@dataclass(frozen=True)
class Flops:
    """Operations by part.

    blocks      the four Linear layers of every block
    attention   scores and weighted values of every block
    token_head  mlm_head: the inner Linear of every row and the projection to the vocabulary
    regression  num_regression
    """

    blocks: int
    attention: int
    token_head: int
    regression: int

    @property
    def total(self) -> int:
        return self.blocks + self.attention + self.token_head + self.regression

    def times(self, factor: int) -> "Flops":
        return Flops(
            self.blocks * factor, self.attention * factor, self.token_head * factor, self.regression * factor
        )


def forward_flops(
    config: ModelConfig,
    samples: int,
    tokens: int,
    *,
    loss_rows: int | None = None,
    regression_rows: int = 0,
    causal: bool = True,
) -> Flops:
    """One forward pass of `samples` sequences of `tokens` positions each.

    loss_rows        rows that are projected to the vocabulary; default all
    regression_rows  rows that num_regression reads
    causal           count the T (T + 1) / 2 pairs of query and key that causal attention needs; otherwise all T^2, as
                     FlopCounterMode and most published figures do

    Raises ValueError for counts that are negative or do not fit the model.
    """
    rows = samples * tokens
    loss_rows = rows if loss_rows is None else loss_rows
    if samples < 1 or not 1 <= tokens <= config.max_len:
        raise ValueError(
            f"{samples} samples of {tokens} tokens: wanted at least one sample of 1..{config.max_len}"
        )
    if not (0 <= loss_rows <= rows and 0 <= regression_rows <= rows):
        raise ValueError(f"{loss_rows} loss and {regression_rows} regression rows: wanted 0..{rows}")
    D = config.embedding_dim
    pairs = samples * (tokens * (tokens + 1) // 2 if causal else tokens * tokens)
    return Flops(
        # c_attn D -> 3D, c_proj D -> D, c_fc D -> 4D, c_proj 4D -> D
        blocks=config.num_layers * 2 * rows * 12 * D * D,
        attention=config.num_layers * 2 * 2 * pairs * D,
        token_head=2 * rows * D * D + 2 * loss_rows * D * config.vocab_size,
        regression=2 * regression_rows * (D * D + D),
    )


def step_flops(
    config: ModelConfig,
    samples: int,
    tokens: int,
    *,
    loss_rows: int | None = None,
    regression_rows: int | None = None,
    causal: bool = True,
) -> Flops:
    """Forward and backward of a pre-training step over `samples` windows. regression_rows: default one per sample (the
    GC task); the other arguments and errors are those of `forward_flops`."""
    regression_rows = samples if regression_rows is None else regression_rows
    forward = forward_flops(
        config, samples, tokens, loss_rows=loss_rows, regression_rows=regression_rows, causal=causal
    )
    return forward.times(1 + BACKWARD_PER_FORWARD)
