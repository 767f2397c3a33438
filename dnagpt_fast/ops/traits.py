"""What a caller can ask about an op without knowing which implementation will run."""

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention.decode_grouped import LEAST_QUERY_ROWS
from dnagpt_fast.ops.combined_loss.chunked import CHUNK_BYTES

# At most this much: a workspace and partial results. The kernels hold no (rows x vocabulary) tensor.
KERNEL_LOSS_BYTES = 128 * 10**6


def attention_is_batch_independent(queries: int) -> bool:
    """Whether `attention` of T = `queries` gives a sequence the same bits in any batch."""
    return queries >= LEAST_QUERY_ROWS


def loss_is_batch_independent(device_type: str) -> bool:
    """Whether `combined_loss` gives a row's log-probability the same bits in every batch of the same size."""
    return dispatch.choose("combined_loss", device_type) == "triton"


def loss_bytes(device_type: str, rows: int, vocab: int) -> int:
    """Bytes that `combined_loss` holds besides inputs and gradients, for `rows` rows over `vocab` tokens in fp32."""
    chosen = dispatch.choose("combined_loss", device_type)
    if chosen == "chunked":
        chunk = max(16, min(rows, CHUNK_BYTES // (4 * vocab)))
        return 4 * chunk * vocab
    if chosen == "triton":
        return KERNEL_LOSS_BYTES
    # plain torch: logits, their log-softmax in fp32, and the gradient of both
    return rows * vocab * 3 * 4


def gelu_is_kept(device_type: str, half: bool) -> bool:
    """Whether a training step keeps the output of the MLP's GELU for the backward pass; `dense` recomputes it."""
    return device_type != "cpu" or half or dispatch.choose("linear", "cpu") != "onednn"


def samples_in_one_call(device_type: str) -> bool:
    """Whether `BatchSampler` draws and tokenizes a batch in one native call."""
    return dispatch.choose("sample_batch", device_type) != "reference"
