"""attention_decode on the CPU, one call per cache length, so that no result depends on the other sequences.

o_b = softmax(scale * q_b k_b^T) v_b over the first cache_lengths[b] keys. A padded and masked call would sum over the
longest sequence of the batch, and a product with one or two rows takes a path whose sums depend on the batch: the last
bits of a sequence would depend on its neighbours. Here neighbours of the same length share a call that masks no cached
key, and fewer than LEAST_QUERY_ROWS query rows are repeated up to that number.
"""

from itertools import groupby

import torch
import torch.nn.functional as F

# With fewer query rows, torch's CPU attention takes a path whose sums depend on the batch.
LEAST_QUERY_ROWS = 4


def attention_decode_grouped(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_lengths: torch.Tensor,
    *,
    scale: float,
) -> torch.Tensor:
    """Arguments and result as of `ops.attention_decode`. Reads the values of the lengths, so it waits for a GPU."""
    queries = q.shape[2]
    copies = -(-LEAST_QUERY_ROWS // queries)
    out = torch.empty_like(q)
    start = 0
    for length, run in groupby(cache_lengths.tolist()):
        stop = start + len(list(run))
        mask = None
        if queries > 1:
            mask = q.new_ones((queries, length), dtype=torch.bool).tril(length - queries).repeat(copies, 1)
        o = F.scaled_dot_product_attention(
            q[start:stop].repeat(1, 1, copies, 1),
            k_cache[start:stop, :, :length],
            v_cache[start:stop, :, :length],
            attn_mask=mask,
            scale=scale,
        )
        out[start:stop] = o[:, :, :queries]
        start = stop
    return out
