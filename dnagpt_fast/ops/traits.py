"""What callers may ask of an op without knowing which implementation will run."""

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.combined_loss.chunked import CHUNK_BYTES

# Two Triton tiles' worth of partials and the like; the kernels hold no (rows x vocabulary) tensor (TARGETS: 128 MB).
KERNEL_LOSS_BYTES = 128 * 10**6


def loss_keeps_rows(device_type: str) -> bool:
    """Whether a row's log-probability from `combined_loss` has the same bits in every batch of one size."""
    return dispatch.choose("combined_loss", device_type) == "triton"


def loss_bytes(device_type: str, rows: int, vocab: int) -> int:
    """What `combined_loss` holds besides its inputs and gradients, in bytes; rows (R,) over `vocab` tokens, fp32."""
    chosen = dispatch.choose("combined_loss", device_type)
    if chosen == "chunked":
        chunk = max(16, min(rows, CHUNK_BYTES // (4 * vocab)))
        return 4 * chunk * vocab
    if chosen == "triton":
        return KERNEL_LOSS_BYTES
    # plain torch: logits, their log-softmax in fp32, and the gradient of both
    return rows * vocab * 3 * 4


def gelu_is_kept(device_type: str, half: bool) -> bool:
    """Whether a training step keeps the output of the MLP's GELU for the backward pass; `dense` computes it again."""
    return device_type != "cpu" or half or dispatch.choose("linear", "cpu") != "onednn"


def samples_in_one_call(device_type: str) -> bool:
    """Whether `BatchSampler` draws and tokenizes a batch in one native call."""
    return dispatch.choose("sample_batch", device_type) != "reference"
