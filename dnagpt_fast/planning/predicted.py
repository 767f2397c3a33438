"""The milliseconds of a pre-training step and of a generated token on a GPU, part by part, before either has run there.

Each part has a count of operations and of bytes from the model's shape, and takes the longer of the two at the rates of
the card: data-sheet rates times the shares below. The shares are assumptions, from published figures of others for
products and memory on these cards; docs/scaling.md says which. benchmarks.gpu_report prints the rows beside measured
ones.
"""

from dataclasses import dataclass
from typing import Any

from dnagpt_fast.model.config import ModelConfig, parameter_count
from dnagpt_fast.ops.mlp.rule import SHARE, WIDEST
from dnagpt_fast.planning.accelerators import Accelerator, accelerator
from dnagpt_fast.planning.flops import step_flops
from dnagpt_fast.planning.step_memory import step_memory
from dnagpt_fast.training.figures import GIB

# Bytes of elementwise work (norms, residual sums, GELU, casts), forward and backward, in units of the width and a row
# and block, with products in bf16 (forward, backward).
ELEMENTWISE = {
    "eager": 64 + 130,
    "compiled": 148,
    "fused norms, fp32 stream": 96,
    "fused norms, bf16 stream": 72,
}
LEAST_SHARE = 0.4  # of the library's rate, for kernels of ours without a figure
OPTIMIZER_BYTES = (
    38  # a parameter: weight, gradient, two moments, read or written; the norm; the cast to bf16
)
LAUNCH_MS = 0.005  # of the host; a step that waits for its launches takes at least this much for each
GRAPH_NODE_MS = 0.0022  # a kernel of a CUDA graph takes at least this much
LAUNCHES_A_BLOCK, LAUNCHES_BESIDES = 32, 150
DECODE_LAUNCHES_A_BLOCK, DECODE_LAUNCHES_BESIDES = 7, 13  # benchmarks.decode_launches, without biases


@dataclass(frozen=True)
class Shares:
    """What large products, attention of 512 and of 4,096 tokens, and memory reach of the data sheet's rates."""

    products: float
    attention_short: float
    attention_long: float
    memory: float


SHARES = {
    "a100": Shares(0.80, 0.22, 0.45, 0.85),
    "h100": Shares(0.61, 0.11, 0.28, 0.84),
    "b200": Shares(0.65, 0.06, 0.20, 0.85),
    "rtx4090": Shares(0.88, 0.35, 0.55, 0.90),
}
SHORT, LONG = 512, 4096
# The kernels that a card runs, for the rule of ops/mlp; others have GELU apart from the products.
ARCHITECTURES = {
    "sm_80": ("a100", "a100-40g"),
    "sm_89": ("l40s", "rtx4090"),
    "sm_90": ("h100", "h100-pcie", "h200"),
}


def shares_of(gpu: Accelerator) -> Shares:
    """Those of the card, or of the card above with the nearest memory rate."""
    nearest = min(SHARES, key=lambda name: abs(accelerator(name).memory_gb_s - gpu.memory_gb_s))
    return SHARES.get(gpu.name, SHARES[nearest])


def predicted_parts(
    config: ModelConfig,
    samples: int,
    gpu: str | Accelerator,
    *,
    elementwise: str = "fused norms, fp32 stream",
    loss_tokens: int | None = None,
    recomputing_loss: bool = False,
    graphed: bool = False,
    gelu_inside: bool | None = None,
) -> list[dict[str, Any]]:
    """A row for each part of a step of `samples` windows of max_len tokens in bf16, and one for the whole step.

    gpu               a name of accelerators.py, or the card itself
    elementwise       a key of ELEMENTWISE: what is fused
    loss_tokens       columns of the loss: the tokens that occur and one; default the whole vocabulary
    recomputing_loss  the kernels that recompute logits (four products at a lower rate) instead of three products
    graphed           the host launches one graph
    gelu_inside       GELU inside two of a block's products (ops/mlp), at the rate of its kernels; None: by its rule

    Each row: part, ms, tflop, gb. The last one, "step", also has tokens_per_s, share_of_peak and memory_gib; its time
    is the sum of the parts, or that of the launches if it is longer. Raises ValueError for an unknown card or key.
    """
    card = accelerator(gpu) if isinstance(gpu, str) else gpu
    if elementwise not in ELEMENTWISE:
        raise ValueError(f"elementwise = {elementwise!r}: wanted one of {', '.join(ELEMENTWISE)}")
    shares = shares_of(card)
    tokens, D, layers = config.max_len, config.embedding_dim, config.num_layers
    R, V = samples * tokens, loss_tokens or config.vocab_size
    peak = card.peak_tflops.get("bf16", card.peak_tflops["fp16"])
    memory = card.memory_gb_s * shares.memory
    flops = step_flops(config, samples, tokens)
    head = 6 * R * D * D  # the inner Linear of the token head, forward and backward

    def part(name: str, operations: float, rate: float, gigabytes: float) -> dict[str, Any]:
        ms = max(operations / (rate * 1e9), gigabytes / memory * 1e3)
        return {"part": name, "ms": ms, "tflop": operations / 1e12, "gb": gigabytes}

    unit = R * D / 1e9
    share = gelu_inside_share(card, D, gelu_inside)
    # bytes that GELU inside does not move, and the time of two products: 16 of the 72 D^2 operations of a row and block
    moved = (ELEMENTWISE[elementwise] - 24 * (share is not None)) * layers * unit
    slower = 0.0 if share is None else 16 * layers * R * D * D * (1 / share - 1)
    parameters = parameter_count(config)
    logits = 2 * R * D * V
    chunks = max(1, R * V * 2 / (118 * 2**20))
    if recomputing_loss:  # its products are kernels of ours, two thirds as fast as the library's
        loss = part(
            "loss", 4 * logits, peak * shares.products * 0.62, R * V * 6 / 1e9 + chunks * V * D * 8 / 1e9
        )
    else:
        products = part("loss", 3 * logits, peak * shares.products, chunks * V * D * 8 / 1e9)
        softmax = part("loss", 0, peak, R * V * 4 / 1e9)
        loss = {"part": "loss"} | {key: products[key] + softmax[key] for key in ("ms", "tflop", "gb")}
    rows = [
        part("products", flops.blocks, peak * shares.products, layers * 24 * D * D * 3 / 1e9),
        part("elementwise", 0, peak, moved),
        part("attention", flops.attention, peak * _attention_share(shares, tokens), layers * 24 * unit),
        loss,
        part("optimizer", 0, peak, OPTIMIZER_BYTES * parameters / 1e9),
        # embeddings, head rows and their gradients
        part("rest", head, peak * shares.products, 80 * unit),
    ]
    rows[0]["ms"] += slower / (peak * shares.products * 1e9)
    kernels = sum(row["ms"] for row in rows)
    host = LAUNCH_MS * (LAUNCHES_A_BLOCK * layers + LAUNCHES_BESIDES) * (not graphed)
    ms = max(kernels, host)
    rows.append({"part": "launches", "ms": host, "tflop": 0.0, "gb": 0.0})
    total = flops.total
    whole = {
        "part": "step",
        "ms": ms,
        "tflop": total / 1e12,
        "gb": sum(row["gb"] for row in rows),
        "tokens_per_s": R / ms * 1e3,
        "share_of_peak": total / (ms * 1e9) / peak,
        "memory_gib": step_memory(config, samples, tokens, device="cuda", precision="bf16").total / GIB,
    }
    return [{"op": "predicted_step", "gpu": card.name, "samples": samples} | row for row in [*rows, whole]]


def gelu_inside_share(card: Accelerator, width: int, inside: bool | None) -> float | None:
    """The share of the library's rate at which the kernels of ops/mlp run their products; None: GELU is apart."""
    architecture = next((name for name, cards in ARCHITECTURES.items() if card.name in cards), "")
    share = SHARE.get(architecture, LEAST_SHARE)
    if inside is None:
        inside = width <= WIDEST.get(architecture, 0)
    return share if inside else None


def predicted_token(config: ModelConfig, lanes: int, cached: int, gpu: str | Accelerator) -> dict[str, Any]:
    """One token of each of `lanes` sequences with `cached` tokens each, in bf16, as one CUDA graph: ms, launches, gb,
    tokens_per_s. The longer of the bytes (weights once, keys and values of each lane) and the launches."""
    card = accelerator(gpu) if isinstance(gpu, str) else gpu
    shares = shares_of(card)
    embeddings = (config.vocab_size + config.max_len) * config.embedding_dim
    weights = 2 * (parameter_count(config) - embeddings)
    cache = 4 * lanes * cached * config.embedding_dim * config.num_layers
    gigabytes = (weights + cache) / 1e9
    launches = DECODE_LAUNCHES_A_BLOCK * config.num_layers + DECODE_LAUNCHES_BESIDES
    ms = max(gigabytes / (card.memory_gb_s * shares.memory) * 1e3, launches * GRAPH_NODE_MS)
    return {
        "op": "predicted_token",
        "gpu": card.name,
        "lanes": lanes,
        "ms": ms,
        "launches": launches,
        "gb": gigabytes,
        "tokens_per_s": lanes / ms * 1e3,
    }


def _attention_share(shares: Shares, tokens: int) -> float:
    along = min(max((tokens - SHORT) / (LONG - SHORT), 0.0), 1.0)
    return shares.attention_short + along * (shares.attention_long - shares.attention_short)
