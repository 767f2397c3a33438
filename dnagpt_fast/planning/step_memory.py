"""How much memory a training step needs at most, and for what, from the shape of the model alone.

A step has three moments that may be its peak, and the largest counts: the loss head while it makes its gradient; the
backward pass of some block, while the gradients grow and the activations go; the optimizer, when all gradients are
there. What autograd keeps of a block is counted tensor by tensor as model/layers.py makes them. R rows (samples *
tokens), D width, H heads, V vocabulary; "a row" is a tensor (R, D).

On the CPU this is compared with measured peaks (tests/planning/test_step_memory.py). On CUDA nothing has been measured
yet.
"""

from dataclasses import dataclass, fields

from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.ops.traits import gelu_is_kept, loss_bytes
from dnagpt_fast.planning.flops import parameter_count

# What DDP sends at once (torch's default, bucket_cap_mb), for which the exchange holds as much again.
BUCKET_BYTES = 25 * 2**20


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
    replicas: int = 1,
    checkpointing: bool = False,
    accumulating: bool = False,
) -> StepMemory:
    """The peak of a pre-training step of `samples` windows of `tokens` tokens in one process.

    device         "cpu" or "cuda": which implementations run (ops/dispatch.py)
    precision      "fp32", or "bf16": autocast over fp32 weights
    shards         processes over which weights, gradients and moments are split (FSDP2, a block at a time); 1: none
    replicas       processes with a whole model each, whose gradients are averaged in buckets (DDP); 1: no others
    checkpointing  blocks keep their input only and are computed again in the backward pass
    accumulating   a step has several micro-batches: from the second on all gradients are there, whole, since they are
                   summed before they are split

    Raises ValueError for counts below one, or an unknown device or precision.
    """
    if min(samples, tokens, shards, replicas) < 1:
        raise ValueError(
            f"{samples} samples, {tokens} tokens, {shards} shards, {replicas} replicas: wanted at least one of each"
        )
    if shards > 1 and replicas > 1:
        raise ValueError(f"{shards} shards of {replicas} replicas: wanted one or the other")
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
    # FSDP2 gathers this block and the next; the embeddings and the token head are one piece in fp32, there from the
    # loss to the end of the backward pass, when their gradients, a copy to send, and on the CPU the exchange's are too.
    root = 4 * (2 * V + config.max_len) * D if shards > 1 else 0
    pair = 2 * block_weights if shards > 1 else 0
    # Half precision adds autocast's copy of the head.
    gathered = root + (pair // 2 + root // 4 if half else pair)
    exchanged = (2 + (device == "cpu")) * root

    # Kept of a block: the inputs of both norms; in the products' type the outputs of both norms, q, k, v, the attended
    # values, the wide row of the MLP, and, but in ops.dense, its GELU. One float a row and head for attention.
    gelu_kept = gelu_is_kept(device, half)
    kept = 2 * row + (10 + 4 * gelu_kept) * moving + 4 * R * config.num_heads
    blocks_kept = layers * row + kept if checkpointing else layers * kept
    # Around them in the MLP's backward pass: the gradients of its output and of the residual; two wide rows.
    temporary = 2 * row + 8 * moving

    # Inputs of ln_f and of the head, both sides of SiLU, the last norm's output, its gradient.
    head_rows = 6 * row
    head_weight = 4 * V * D
    loss = loss_bytes(device, R, V)
    done_head = head_weight + 4 * D * D  # whole until the backward pass is over, in shards too
    # DDP's gradients are parts of its buckets, which stay; the last one is still under way when all are made.
    standing = trained if accumulating or replicas > 1 else 0
    under_way = BUCKET_BYTES if replicas > 1 else 0
    moments = [
        # the loss head
        StepMemory(
            weights + gathered,
            standing,
            optimizer,
            blocks_kept,
            head_rows + head_weight + loss,
        ),
        # the end of the backward pass, and the optimizer: all gradients
        StepMemory(weights + root, trained // shards + under_way + exchanged, optimizer, 0, 0),
    ]
    for left in range(1, layers + 1):
        made = standing or done_head + (layers - left) * block_weights // shards + block_weights // 3 + pair
        here = left * row + kept if checkpointing else left * kept
        moments.append(StepMemory(weights + gathered, made, optimizer, here + temporary, 0))
    return max(moments, key=lambda moment: moment.total)


def trained_count(config: ModelConfig) -> int:
    """Parameters that pre-training moves: all but the number embedding, which no sample of it enters."""
    D, bias = config.embedding_dim, int(config.bias)
    return parameter_count(config) - (D + bias * D + D * (1 + bias) + D * D + bias * D)
