"""How much memory a training step needs at most, and for what, from the shape of the model alone.

A step has three moments that may be its peak, and the largest counts: the loss head while it makes its gradient; the
backward pass of some block, while the gradients grow and the activations go; the optimizer, when all gradients are
there. What autograd keeps of a block is counted tensor by tensor as model.py makes them. R rows (samples * tokens),
D width, H heads, V vocabulary; "a row" is a tensor (R, D).

On the CPU this is held against measured peaks (tests/test_step_memory.py). On CUDA nothing has been measured yet.
"""

from dataclasses import dataclass, fields

from dnagpt_fast.config import ModelConfig
from dnagpt_fast.flops import parameter_count
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.combined_loss_chunked import CHUNK_BYTES

GIB = 2**30
# Two Triton tiles' worth of partials and the like; the kernels hold no (rows x vocabulary) tensor (TARGETS: 128 MB).
KERNEL_LOSS_BYTES = 128 * 10**6


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one process at the peak of a step.

    weights      parameters, and the copies that a step computes with (half-precision casts, gathered shards)
    gradients    those there at that moment
    optimizer    AdamW's two moments, fp32
    activations  what the blocks keep for the backward pass, and the temporaries of the moment
    loss_head    what the token head and the loss hold
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    loss_head: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def step_memory(
    config: ModelConfig,
    samples: int,
    tokens: int,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    shards: int = 1,
    checkpointing: bool = False,
    accumulating: bool = False,
) -> StepMemory:
    """The peak of a pre-training step of `samples` windows of `tokens` tokens in one process.

    device         "cpu" or "cuda": which implementations run (ops/dispatch.py)
    precision      "fp32", or "bf16": autocast over fp32 weights
    shards         processes over which weights, gradients and moments are split (FSDP2, a block at a time); 1: none
    checkpointing  blocks keep their input only and are computed again in the backward pass
    accumulating   a step has several micro-batches: from the second on all gradients are there, whole, since they are
                   summed before they are split

    Raises ValueError for counts below one, or an unknown device or precision.
    """
    if min(samples, tokens, shards) < 1:
        raise ValueError(f"{samples} samples, {tokens} tokens, {shards} shards: wanted at least one of each")
    if device not in ("cpu", "cuda") or precision not in ("fp32", "bf16"):
        raise ValueError(f"{precision} on {device}: wanted fp32 or bf16 on cpu or cuda")
    half = precision == "bf16"
    R, D, V, layers = samples * tokens, config.embedding_dim, config.vocab_size, config.num_layers
    row = 4 * R * D
    moving = 2 * R * D if half else row  # a row in the type that products are made in
    all_weights, trained = 4 * parameter_count(config), 4 * trained_count(config)
    block_weights = 4 * 12 * D * D
    optimizer = 2 * trained // shards
    weights = all_weights // shards
    if half:
        weights += (all_weights // 2) if shards == 1 else 0  # autocast keeps the casts until the step is over
    if shards > 1:
        # This block and the next; embeddings and head in fp32 for the whole step, and autocast's copy of the head.
        weights += block_weights if half else 2 * block_weights
        weights += 4 * (2 * V + config.max_len) * D + (2 * V * D if half else 0)

    # Kept of a block: the inputs of both norms; in the products' type the outputs of both norms, q, k, v, the attended
    # values, the wide row of the MLP, and, but in ops.dense, its GELU. One float a row and head for attention.
    gelu_kept = device != "cpu" or half or dispatch.choose("linear", "cpu") != "onednn"
    kept = 2 * row + (10 + 4 * gelu_kept) * moving + 4 * R * config.num_heads
    blocks_kept = layers * row + kept if checkpointing else layers * kept
    # Around them in the MLP's backward pass: the gradients of its output and of the residual; two wide rows.
    temporary = 2 * row + 8 * moving

    head_rows = (
        6 * row
    )  # inputs of ln_f and of the head, both sides of SiLU, the last norm's output, its gradient
    head_weight = 4 * V * D
    loss = _loss_bytes(device, R, V)
    done_head = head_weight + 4 * D * D  # whole until the backward pass is over, in shards too
    moments = [
        # the loss head
        StepMemory(
            weights, trained if accumulating else 0, optimizer, blocks_kept, head_rows + head_weight + loss
        ),
        # the optimizer: all gradients
        StepMemory(weights, trained // shards, optimizer, 0, 0),
    ]
    for left in range(1, layers + 1):
        made = done_head + (layers - left) * block_weights // shards + block_weights // 3
        made = trained if accumulating else made
        here = left * row + kept if checkpointing else left * kept
        moments.append(StepMemory(weights, made, optimizer, here + temporary, 0))
    return max(moments, key=lambda moment: moment.total)


def trained_count(config: ModelConfig) -> int:
    """Parameters that pre-training moves: all but the number embedding, which no sample of it enters."""
    D, bias = config.embedding_dim, int(config.bias)
    return parameter_count(config) - (D + bias * D + D * (1 + bias) + D * D + bias * D)


def _loss_bytes(device: str, rows: int, vocab: int) -> int:
    """What the combined loss holds besides its inputs and gradients."""
    chosen = dispatch.choose("combined_loss", device)
    if chosen == "chunked":
        chunk = max(16, min(rows, CHUNK_BYTES // (4 * vocab)))
        return 4 * chunk * vocab
    if chosen == "triton":
        return KERNEL_LOSS_BYTES
    # plain torch: logits, their log-softmax in fp32, and the gradient of both
    return rows * vocab * 3 * 4
