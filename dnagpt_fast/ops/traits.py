"""What a caller can ask about an op without knowing which implementation will run."""

from pathlib import Path

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention.decode_grouped import LEAST_QUERY_ROWS
from dnagpt_fast.ops.combined_loss.chunked import CHUNK_BYTES

# At most this much: a workspace and partial results. The kernels hold no (rows x vocabulary) tensor.
KERNEL_LOSS_BYTES = 128 * 10**6
KERNEL_LOSSES = ("triton", "products", "rule")


def attention_is_batch_independent(queries: int) -> bool:
    """Whether `attention` of T = `queries` gives a sequence the same bits in any batch."""
    return queries >= LEAST_QUERY_ROWS


def loss_is_batch_independent(device_type: str) -> bool:
    """Whether `combined_loss` gives a row's log-probability the same bits in every batch of the same size."""
    return dispatch.choose("combined_loss", device_type) in KERNEL_LOSSES


def loss_bytes(device_type: str, rows: int, vocab: int) -> int:
    """Bytes that `combined_loss` holds besides inputs and gradients, for `rows` rows over `vocab` tokens in fp32."""
    chosen = dispatch.choose("combined_loss", device_type)
    if chosen == "chunked":
        chunk = max(16, min(rows, CHUNK_BYTES // (4 * vocab)))
        return 4 * chunk * vocab
    if chosen in KERNEL_LOSSES:
        return KERNEL_LOSS_BYTES
    # plain torch: logits, their log-softmax in fp32, and the gradient of both
    return rows * vocab * 3 * 4


def gelu_is_kept(device_type: str, half: bool) -> bool:
    """Whether a training step keeps the output of the MLP's GELU for the backward pass; `dense` recomputes it."""
    return device_type != "cpu" or half or dispatch.choose("linear", "cpu") != "onednn"


def samples_in_one_call(device_type: str) -> bool:
    """Whether `BatchSampler` draws and tokenizes a batch in one native call."""
    return dispatch.choose("sample_batch", device_type) != "reference"


PRODUCTS = ("float32", "bfloat16", "int8")
"""What the matrix products of a float32 model can be computed in on the CPU (model/products.py)."""
# Flags of /proc/cpuinfo: with one of these the products are faster than in float32, without them many times slower.
FAST_PRODUCTS = {"bfloat16": ("avx512_bf16", "amx_bf16"), "int8": ("avx512_vnni", "amx_int8")}


def processor_flags() -> frozenset[str]:
    """The instruction sets that Linux lists for the first processor; empty on other systems and processors."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def fast_products() -> list[str]:
    """Those of PRODUCTS that this processor has instructions for."""
    flags = processor_flags()
    return ["float32", *(name for name, wanted in FAST_PRODUCTS.items() if flags & set(wanted))]


def refuse_products(products: str, what: str = "products") -> None:
    """Raises ValueError for a name that is not in PRODUCTS, and for products that would be slower than float32 here.

    Forcing their op, as the message says, allows them anyway: for tests, and to compare results.
    """
    if products not in PRODUCTS:
        raise ValueError(f"{what} = {products!r}: wanted one of {', '.join(PRODUCTS)}")
    if products in fast_products() or dispatch.forced(f"linear_{products}") is not None:
        return
    wanted = " or ".join(FAST_PRODUCTS[products])
    raise ValueError(
        f"{what} = {products!r}: this processor lacks {wanted} (/proc/cpuinfo), without which such products are "
        f"several times slower than float32: use float32, or force them with "
        f"{dispatch.ENVIRONMENT}=linear_{products}=torch"
    )
