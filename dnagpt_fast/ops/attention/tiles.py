"""Tile tables of the attention kernels: fixed, so that a run starts at once and repeats bit for bit.

A row is (family, pass, head size) -> tiles by T: the first tile with T <= up_to is used. They were chosen with the
compile audit (no spills, most resident warps, fewest instructions per score), which also checks them;
`python -m benchmarks.gpu_attention --tune` times the candidates on a card and prints rows for this table.
"""

from dataclasses import dataclass

import torch

from dnagpt_fast.ops.triton_settings import FAMILIES, family, triton_version

HEAD_SIZES = (32, 64, 128)
LONGEST = 1 << 62


@dataclass(frozen=True)
class Tile:
    """BT queries by BS keys.

    specialize: warp specialisation, which Triton does on Blackwell with tma, and ignores on Hopper (forward only).
    tma: keys and values are loaded through descriptors (forward only).
    """

    BT: int
    BS: int
    warps: int
    stages: int
    specialize: bool = False
    tma: bool = False
    up_to: int = LONGEST

    @property
    def launch(self) -> dict[str, object]:
        """Keyword arguments of a launch of any pass."""
        return {"BT": self.BT, "BS": self.BS, "num_warps": self.warps, "num_stages": self.stages}


TILES: dict[tuple[str, str, int], tuple[Tile, ...]] = {
    ("ampere", "forward", 32): (Tile(128, 64, 8, 2),),
    ("ampere", "forward", 64): (Tile(128, 64, 8, 2),),
    ("ampere", "forward", 128): (Tile(128, 32, 8, 2),),
    ("ampere", "dq", 32): (Tile(128, 32, 4, 2),),
    ("ampere", "dq", 64): (Tile(128, 32, 8, 2),),
    ("ampere", "dq", 128): (Tile(64, 32, 4, 2),),
    ("ampere", "dkdv", 32): (Tile(32, 64, 4, 2),),
    ("ampere", "dkdv", 64): (Tile(32, 64, 4, 2, up_to=512), Tile(32, 128, 8, 2)),
    ("ampere", "dkdv", 128): (Tile(16, 128, 8, 2),),
    ("hopper", "forward", 32): (Tile(128, 128, 8, 2, tma=True),),
    ("hopper", "forward", 64): (Tile(128, 128, 8, 2, tma=True),),
    ("hopper", "forward", 128): (Tile(128, 128, 8, 2, tma=True),),
    ("hopper", "dq", 32): (Tile(128, 64, 8, 2),),
    ("hopper", "dq", 64): (Tile(64, 64, 4, 2),),
    ("hopper", "dq", 128): (Tile(128, 64, 8, 2),),
    ("hopper", "dkdv", 32): (Tile(64, 64, 4, 2, up_to=512), Tile(64, 128, 8, 2)),
    ("hopper", "dkdv", 64): (Tile(64, 128, 8, 2),),
    ("hopper", "dkdv", 128): (Tile(32, 128, 8, 2),),
    ("blackwell", "forward", 32): (Tile(128, 128, 4, 2, specialize=True, tma=True),),
    ("blackwell", "forward", 64): (Tile(128, 128, 8, 2, specialize=True, tma=True),),
    ("blackwell", "forward", 128): (Tile(128, 128, 8, 2, specialize=True, tma=True),),
    ("blackwell", "dq", 32): (Tile(128, 64, 8, 2),),
    ("blackwell", "dq", 64): (Tile(128, 64, 8, 2),),
    ("blackwell", "dq", 128): (Tile(128, 64, 8, 3),),
    ("blackwell", "dkdv", 32): (Tile(64, 64, 4, 2),),
    ("blackwell", "dkdv", 64): (Tile(64, 64, 4, 2),),
    ("blackwell", "dkdv", 128): (Tile(64, 64, 8, 2),),
    ("cdna3", "forward", 32): (Tile(128, 32, 4, 2),),
    ("cdna3", "forward", 64): (Tile(128, 32, 4, 2),),
    ("cdna3", "forward", 128): (Tile(128, 32, 4, 2),),
    ("cdna3", "dq", 32): (Tile(64, 32, 4, 2),),
    ("cdna3", "dq", 64): (Tile(64, 32, 4, 2),),
    ("cdna3", "dq", 128): (Tile(64, 32, 4, 1),),
    ("cdna3", "dkdv", 32): (Tile(32, 64, 4, 1),),
    ("cdna3", "dkdv", 64): (Tile(32, 64, 4, 1),),
    ("cdna3", "dkdv", 128): (Tile(32, 64, 4, 1),),
}

# it has the tensor cores of Ampere; at head size 128 the compiler keeps more in registers
for _which in ("forward", "dq", "dkdv"):
    for _size in (32, 64):
        TILES["rtx blackwell", _which, _size] = TILES["ampere", _which, _size]
TILES["rtx blackwell", "dkdv", 64] = (Tile(16, 128, 8, 2),)
TILES["rtx blackwell", "forward", 128] = (Tile(64, 32, 4, 2),)
TILES["rtx blackwell", "dq", 128] = (Tile(64, 32, 4, 2),)
TILES["rtx blackwell", "dkdv", 128] = (Tile(32, 64, 8, 2),)

# fp32 does not run on tensor cores: each thread holds its operands in registers, and larger tiles would spill
TILES_FP32: dict[tuple[str, int], tuple[Tile, ...]] = {
    ("forward", 32): (Tile(32, 32, 4, 1),),
    ("forward", 64): (Tile(32, 32, 8, 1),),
    ("forward", 128): (Tile(32, 16, 8, 1),),
    ("dq", 32): (Tile(32, 16, 4, 1),),
    ("dq", 64): (Tile(32, 16, 8, 1),),
    ("dq", 128): (Tile(16, 16, 8, 1),),
    ("dkdv", 32): (Tile(16, 32, 8, 1),),
    ("dkdv", 64): (Tile(16, 32, 8, 1),),
    ("dkdv", 128): (Tile(16, 16, 8, 1),),
}

# by family too, where the row above spills
TILES_FP32_OF: dict[tuple[str, str, int], tuple[Tile, ...]] = {
    ("ampere", "dkdv", 32): (Tile(16, 32, 4, 1),),
    ("rtx blackwell", "dkdv", 32): (Tile(16, 32, 4, 1),),
}

# Backward of a whole head by one program (block_kernel.py): (family, head size) -> tiles of BT = BS tokens, the most
# that fit. Scores and their gradients are in registers: at head size 128 a tile of 128 tokens spills 30 on Hopper and
# 412 on Ampere. Other cards have only the smaller tile.
BLOCKS: dict[tuple[str, int], tuple[Tile, ...]] = {
    (card, size): (Tile(64, 64, 4, 1, up_to=64),)
    for card in sorted(set(FAMILIES.values()))
    for size in HEAD_SIZES
}
for _size in (32, 64):
    for _card in ("ampere", "hopper"):
        BLOCKS[_card, _size] += (Tile(128, 128, 8, 1, up_to=128),)

# Triton 3.6, which comes with torch 2.11. On Hopper its backward passes data of cp.async to wgmma without the proxy
# fence that PTX requires (3.7 adds it); with one stage the data goes through registers, which are fenced. On Blackwell
# its specialised forward stores and copies to the same bytes without an order, and dQ spills at head size 128.
_TRITON_3_6: dict[tuple[str, str, int], tuple[Tile, ...]] = {
    ("hopper", "dq", 32): (Tile(128, 64, 8, 1),),
    ("hopper", "dq", 64): (Tile(64, 64, 4, 1),),
    ("hopper", "dq", 128): (Tile(128, 64, 8, 1),),
    ("hopper", "dkdv", 32): (Tile(64, 64, 4, 1, up_to=512), Tile(64, 128, 8, 1)),
    ("hopper", "dkdv", 64): (Tile(64, 128, 8, 1),),
    ("hopper", "dkdv", 128): (Tile(32, 128, 8, 1),),
    ("blackwell", "forward", 64): (Tile(128, 64, 8, 2),),
    ("blackwell", "forward", 128): (Tile(64, 64, 8, 2),),
    ("blackwell", "dq", 128): (Tile(64, 64, 8, 2),),
}
# version of Triton -> rows instead of those of TILES. 3.8 spills 8 registers in dQ with packed sequences.
TILES_OF_VERSION: dict[tuple[int, int], dict[tuple[str, str, int], tuple[Tile, ...]]] = {
    (3, 6): _TRITON_3_6,
    (3, 8): {("hopper", "dq", 128): (Tile(128, 32, 8, 2),)},
}


def tile_for(which: str, q: torch.Tensor, tokens: int) -> Tile:
    """The tile of a pass ("forward", "dq", "dkdv") for q's card, head size and dtype at T = tokens."""
    size = q.shape[-1]
    key = (family(q.device), which, size)
    if q.element_size() >= 4:
        rows = TILES_FP32_OF.get(key, TILES_FP32[which, size])
    else:
        rows = TILES_OF_VERSION.get(triton_version(), {}).get(key, TILES[key])
    return next(tile for tile in rows if tokens <= tile.up_to)


def block_for(q: torch.Tensor, tokens: int) -> Tile | None:
    """The tile of a backward pass in one launch, for q's card, head size and dtype at T = tokens; None: two passes."""
    if q.element_size() >= 4:
        return None
    return next((tile for tile in BLOCKS[family(q.device), q.shape[-1]] if tokens <= tile.up_to), None)


def decode_keys(dtype: torch.dtype) -> int:
    """Keys per program of the decoding kernel; the same on every card, so that the result does not depend on it."""
    return 64 if dtype.itemsize >= 4 else 128


def decode_warps(q: torch.Tensor) -> int:
    """Warps per program of the decoding kernel: 8 if its keys and values fill the registers of 4."""
    most = 256 if triton_version() < (3, 7) else 512  # bytes of a key
    return 8 if q.shape[-1] * q.element_size() >= most else 4
