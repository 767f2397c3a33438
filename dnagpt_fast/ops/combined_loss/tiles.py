"""The vocabulary as the loss kernels see it: the 4,096 plain A/C/G/T 6-mers side by side, in tiles of 128 (64 where
a kernel's products are in fp32).

A trained model gives almost no probability to the other entries (those with N, the shorter ones), so that whole tiles
of them can be left out of the backward pass (`skip_below`). Outside the kernels ids stay as they are.
"""

from functools import cache
from itertools import product

import torch

from dnagpt_fast.vocab import MAX_K, Vocabulary

TILE_ROWS = 128
TILE_VOCAB = 128


@cache
def _order(vocab: int) -> tuple[int, ...]:
    for vocabulary in (Vocabulary(MAX_K, dynamic=True), Vocabulary(MAX_K, dynamic=False)):
        if len(vocabulary) == vocab:
            plain = sorted(vocabulary.kmer_id("".join(bases)) for bases in product("AGCT", repeat=MAX_K))
            return (*plain, *sorted(set(range(vocab)) - set(plain)))
    return tuple(range(vocab))


@cache
def tile_order(vocab: int, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """int32 (V,) twice: the token id at each place of the kernels' order, and the place of each token id.

    0..V-1 where V is no k = 6 vocabulary of DNAGPT.
    """
    order = torch.tensor(_order(vocab), dtype=torch.int32)
    return order.to(device), torch.argsort(order).to(device, torch.int32)
