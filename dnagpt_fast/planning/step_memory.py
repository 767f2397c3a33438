"""The peak memory of a training step by part, from the shape of the model alone.

The peak is at one of three moments of a step; the largest is taken: the loss head while it computes its gradient; the
backward pass of a block, while gradients are added and activations freed; the optimizer, when all gradients exist. The
tensors that autograd saves for a block are counted one by one, as model/layers.py makes them. R rows (samples *
tokens), D width, H heads, V vocabulary; "a row" is a tensor (R, D).

On the CPU this is compared with measured peaks (tests/planning/test_step_memory.py). On CUDA nothing has been measured
yet.
"""

from dataclasses import dataclass, fields

from dnagpt_fast.model.config import ModelConfig, parameter_count
from dnagpt_fast.ops.traits import gelu_is_kept, loss_bytes

# The size of DDP's buckets (torch's default, bucket_cap_mb); the exchange holds a second copy of one bucket.
BUCKET_BYTES = 25 * 2**20


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one process at the peak of a step.

    weights      parameters, and the copies that a step computes with (half-precision casts, gathered shards)
    gradients    those that exist at the peak
    optimizer    AdamW's two moments, fp32
    activations  saved by the blocks for the backward pass, and temporaries at the peak
    loss_head    held by the token head and the loss
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
    shards         processes over which weights, gradients and moments are split (FSDP2, block by block); 1: no split
    replicas       processes with a whole model each, whose gradients are averaged in buckets (DDP); 1: one process
    checkpointing  blocks keep only their input and are recomputed in the backward pass
    accumulating   a step has several micro-batches: from the second one on all gradients exist, unsplit, because they
                   are summed before they are split

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
    product_row = 2 * R * D if half else row  # a row in the dtype of the matrix products
    all_weights, trained = 4 * parameter_count(config), 4 * trained_count(config)
    block_weights = 4 * 12 * D * D
    optimizer = 2 * trained // shards
    weights = all_weights // shards
    if half:
        weights += (
            (all_weights // 2) if shards == 1 else 0
        )  # autocast keeps the casts until the end of the step
    # FSDP2 gathers this block and the next one. The embeddings and the token head are one piece in fp32, gathered from
    # the loss to the end of the backward pass. Then their gradients exist too, a copy to send, and on the CPU a copy
    # for the exchange.
    root = 4 * (2 * V + config.max_len) * D if shards > 1 else 0
    pair = 2 * block_weights if shards > 1 else 0
    # Half precision adds autocast's copy of the head.
    gathered = root + (pair // 2 + root // 4 if half else pair)
    exchanged = (2 + (device == "cpu")) * root

    # Saved per block: the inputs of both norms in fp32; in the dtype of the products the outputs of both norms, q, k,
    # v, the attention output, the wide row of the MLP, and, except in ops.dense, its GELU; one float per row and head.
    gelu_kept = gelu_is_kept(device, half)
    kept = 2 * row + (10 + 4 * gelu_kept) * product_row + 4 * R * config.num_heads
    blocks_kept = layers * row + kept if checkpointing else layers * kept
    # Temporary in the MLP's backward pass: the gradients of its output and of the residual; two wide rows.
    temporary = 2 * row + 8 * product_row

    # Inputs of ln_f and of the head, input and output of SiLU, output of the last norm, its gradient.
    head_rows = 6 * row
    head_weight = 4 * V * D
    loss = loss_bytes(device, R, V)
    head_gradient = head_weight + 4 * D * D  # unsplit until the end of the backward pass, with shards too
    # DDP's gradients are parts of its buckets, which are never freed; the last one is still sent when all are computed.
    all_gradients = trained if accumulating or replicas > 1 else 0
    being_sent = BUCKET_BYTES if replicas > 1 else 0
    moments = [
        # the loss head
        StepMemory(
            weights + gathered,
            all_gradients,
            optimizer,
            blocks_kept,
            head_rows + head_weight + loss,
        ),
        # the end of the backward pass, and the optimizer: all gradients
        StepMemory(weights + root, trained // shards + being_sent + exchanged, optimizer, 0, 0),
    ]
    for left in range(1, layers + 1):
        gradients = head_gradient + (layers - left) * block_weights // shards + block_weights // 3 + pair
        saved = left * row + kept if checkpointing else left * kept
        moments.append(
            StepMemory(weights + gathered, all_gradients or gradients, optimizer, saved + temporary, 0)
        )
    return max(moments, key=lambda moment: moment.total)


def trained_count(config: ModelConfig) -> int:
    """Parameters that pre-training trains: all except the number embedding, which its samples do not use."""
    D, bias = config.embedding_dim, int(config.bias)
    return parameter_count(config) - (D + bias * D + D * (1 + bias) + D * D + bias * D)
