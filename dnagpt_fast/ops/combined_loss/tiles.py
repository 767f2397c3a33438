"""Tiles of the loss kernels: their sizes by card, and the order of the vocabulary, with plain k-mers adjacent.

The table was chosen with the compile audit (no spills on any card), which also checks it. A trained model gives almost
no probability to entries that are not plain k-mers (k-mers with N, shorter k-mers), so whole tiles of them can be
skipped in the backward pass (`skip_below`). Only the kernels use this order; token ids do not change.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from dnagpt_fast.ops import triton_settings
from dnagpt_fast.ops.combined_loss.occurring import plain_kmers
from dnagpt_fast.ops.combined_loss.settings import RowSettings
from dnagpt_fast.vocab import MAX_K, Vocabulary

TILE_ROWS = 128
TILE_VOCAB = 128


@dataclass(frozen=True)
class LossTile:
    """Size of the tile of a pass; tile_edge gives its rows.

    step: bytes of a row that a product reads at a time (128 are 64 halves or 32 floats); narrow: half as many
    vocabulary entries as rows
    """

    step: int = 128
    warps: int = 8
    stages: int = 3
    narrow: bool = False


# (family of cards, pass) -> tile. "skip": with the tile skip; "bias": with a bias; "bases": with the base-level loss,
# whose sums would spill next to a whole tile of logits. Three stages of two 16 KiB tiles fit every NVIDIA card, two fit
# AMD's 64 KiB.
LOGITS = ("forward", "forward bias", "forward bases", "dz", "dz bias", "dz bases")
PASSES = (*LOGITS, "dx", "dx skip", "dw", "dw bias", "dw skip")
TILES: dict[tuple[str, str], LossTile] = {
    (family, which): LossTile(stages=2 if family == "cdna3" else 3, narrow="bases" in which)
    for family in sorted(set(triton_settings.FAMILIES.values()))
    for which in PASSES
}
# whole steps spill 2 to 14 registers
for _row in (("rtx blackwell", "dx skip"), ("rtx blackwell", "dw bias"), ("blackwell", "dz")):
    TILES[_row] = LossTile(step=64)
TILES["ampere", "dw bias"] = LossTile(step=64, stages=2)
TILES["rtx blackwell", "forward bias"] = LossTile(narrow=True)
# whole tiles spill up to 30
TILES["blackwell", "forward bias"] = TILES["blackwell", "dz bias"] = LossTile(narrow=True)

# (family, pass) -> the first version of Triton that the row above is for, and the tile for older ones, with which the
# row above spills or dx has its products serialised
OLDER: dict[tuple[str, str], tuple[tuple[int, int], LossTile]] = {
    ("hopper", "forward bases"): ((3, 8), LossTile(step=256, stages=2, narrow=True)),
    ("hopper", "dz bias"): ((3, 9), LossTile(narrow=True)),
    ("hopper", "dx"): ((3, 7), LossTile(stages=1)),
}


def tile_edge(x: torch.Tensor) -> int:
    """Rows, and vocabulary entries, of a tile in every pass; half as many in fp32, which needs more registers."""
    return TILE_ROWS if x.element_size() == 2 else TILE_ROWS // 2


def launch_of(which: str, x: torch.Tensor, settings: RowSettings, *, bias: bool) -> dict[str, Any]:
    """Compile-time arguments and launch options of a pass ("forward", "dz", "dx", "dw") over rows x (R, D), or of the
    kernels without a product ("reduce"). bias: whether the logits have one."""
    constants = triton_settings.product_constants(x)
    if which == "reduce":
        return {"ACC": constants["ACC"], "num_warps": 4, **triton_settings.LAUNCH}
    logits = which in ("forward", "dz")
    if logits:
        suffix = " bases" if settings.base_level else " bias" if bias else ""
    else:
        # with a bias the tile of dW is the same with and without the skip, and so are its bits
        suffix = " bias" if bias and which == "dw" else " skip" if settings.may_skip else ""
    row = (triton_settings.family(x.device), which + suffix)
    tile = TILES[row]
    if row in OLDER and triton_settings.triton_version() < OLDER[row][0]:
        tile = OLDER[row][1]
    edge, step = tile_edge(x), tile.step // x.element_size()
    # columns of D: the step of the product of logits, a tile's third edge in dx and dw
    columns = {"BD": step} if logits else {"BD": edge, "BS": step}
    columns |= {"BT": edge, "BV": edge // 2 if tile.narrow else edge}
    return {
        **constants, **columns, "EVEN_D": x.shape[1] % columns["BD"] == 0,
        "num_warps": tile.warps, "num_stages": tile.stages, **triton_settings.LAUNCH,
    }  # fmt: skip


@cache
def _order(vocab: int, k: int, compact: bool) -> tuple[int, ...]:
    for vocabulary in (
        () if compact else (Vocabulary(k or MAX_K, dynamic=True), Vocabulary(k or MAX_K, dynamic=False))
    ):
        if len(vocabulary) == vocab:
            plain = plain_kmers(vocabulary).tolist()
            return (*plain, *sorted(set(range(vocab)) - set(plain)))
    return tuple(range(vocab))


@cache
def tile_order(
    vocab: int, device: torch.device | str = "cpu", k: int = 0, compact: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """int32 (V,) twice: the token id at each place of the kernels' order, and the place of each token id.

    The plain k-mers come first, in the order of their bases. k = 0: k is 6 if V is the size of a k = 6 vocabulary,
    otherwise the order is 0..V-1. In the compact form, too, the order is 0..V-1: its plain k-mers are already first
    (occurring.py).
    """
    order = torch.tensor(_order(vocab, k, compact), dtype=torch.int32)
    return order.to(device), torch.argsort(order).to(device, torch.int32)
