"""Tile tables of the attention kernels: fixed, so that a run starts at once and repeats bit for bit.

A row is (family, pass, head size) -> tiles by T: the first tile whose `up_to` is not below T is taken. They were chosen
from the compile audit (no spill, most warps alive, fewest instructions a score) and are held there;
`python -m benchmarks.gpu_attention --tune` times the candidates on a card and prints rows to put here.
"""

from dataclasses import dataclass

import torch

from dnagpt_fast.ops.triton_settings import family, triton_version

HEAD_SIZES = (32, 64, 128)
LONGEST = 1 << 62


@dataclass(frozen=True)
class Tile:
    """BT queries by BS keys.

    specialize: warp specialisation, which Triton does on Blackwell, with tma, and ignores on Hopper (forward only).
    tma: keys and values come by descriptors (forward only).
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
    ("hopper", "dkdv", 128): (Tile(32, 64, 4, 2),),
    ("blackwell", "forward", 32): (Tile(128, 128, 4, 2, specialize=True, tma=True),),
    ("blackwell", "forward", 64): (Tile(128, 128, 8, 2, specialize=True, tma=True),),
    ("blackwell", "forward", 128): (Tile(128, 128, 8, 2, specialize=True, tma=True),),
    ("blackwell", "dq", 32): (Tile(128, 64, 8, 2),),
    ("blackwell", "dq", 64): (Tile(128, 64, 8, 2),),
    ("blackwell", "dq", 128): (Tile(128, 64, 8, 2),),
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

# the tensor cores of Ampere; at head size 128 its compiler holds more in registers
for _which in ("forward", "dq", "dkdv"):
    for _size in (32, 64):
        TILES["rtx blackwell", _which, _size] = TILES["ampere", _which, _size]
TILES["rtx blackwell", "forward", 128] = (Tile(64, 32, 4, 2),)
TILES["rtx blackwell", "dq", 128] = (Tile(64, 32, 4, 2),)
TILES["rtx blackwell", "dkdv", 128] = (Tile(32, 64, 8, 2),)

# fp32 runs on the plain cores, where each thread holds its operands in registers: small tiles, or they spill
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

# Triton 3.6, which torch 2.11 brings. On Hopper its backward feeds data of cp.async to wgmma without the proxy fence
# that PTX demands (3.7 adds it): one stage loads through registers, which are fenced. On Blackwell its specialised
# forward stores and copies over the same bytes without an order between them, and dQ spills at head size 128.
TILES_TRITON_3_6: dict[tuple[str, str, int], tuple[Tile, ...]] = {
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


def tile_for(which: str, q: torch.Tensor, tokens: int) -> Tile:
    """The tile of a pass ("forward", "dq", "dkdv") for q's card, head size and dtype at T = tokens."""
    size = q.shape[-1]
    if q.element_size() >= 4:
        rows = TILES_FP32[which, size]
    else:
        key = (family(q.device), which, size)
        rows = TILES[key]
        if triton_version() < (3, 7):
            rows = TILES_TRITON_3_6.get(key, rows)
    return next(tile for tile in rows if tokens <= tile.up_to)


def decode_keys(dtype: torch.dtype) -> int:
    """Keys one program of the decoding kernel takes; the same everywhere, so that a result repeats on every card."""
    return 64 if dtype.itemsize >= 4 else 128


def decode_warps(q: torch.Tensor) -> int:
    """Warps of a program of the decoding kernel: 8 where its keys and values fill the registers of 4."""
    return 8 if q.shape[-1] * q.element_size() >= 512 else 4
