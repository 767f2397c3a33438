"""Tile tables of the attention kernels: fixed, so that a run starts at once and repeats bit for bit.

One row per (architecture, pass, head size), by T: the first tile whose `up_to` is not below T is taken.
`python -m benchmarks.compile_audit` holds all of them free of spills; `python -m benchmarks.gpu_attention --tune` times
the candidates on a card and prints rows to put here.
"""

import functools
from dataclasses import dataclass

import torch

LONGEST = 1 << 62


@dataclass(frozen=True)
class Tile:
    """BT queries by BS keys. `specialize`: warp specialisation, which Triton does on Blackwell and ignores on Hopper."""

    BT: int
    BS: int
    warps: int
    stages: int
    specialize: bool = False
    up_to: int = LONGEST

    @property
    def launch(self) -> dict[str, object]:
        """Keyword arguments of a launch; fused multiply-add is pinned, since Triton 3.10 turns it off by default."""
        return {
            "BT": self.BT,
            "BS": self.BS,
            "SPECIALIZE": self.specialize,
            "num_warps": self.warps,
            "num_stages": self.stages,
            "enable_fp_fusion": True,
        }


TILES: dict[tuple[str, str, int], tuple[Tile, ...]] = {}
PASSES = ("forward", "dq", "dkdv")
for _pass in PASSES:
    for _arch in ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942"):
        for _size in (32, 64, 128):
            TILES[_arch, _pass, _size] = (Tile(64, 64, 4, 2),)


def architecture(device: torch.device) -> str:
    """ "sm_90", "gfx942": the row of the table. Tensors on the CPU (the interpreter) take the smallest card's rows."""
    return "sm_86" if device.type == "cpu" else _cuda_architecture(device.index)


@functools.cache
def _cuda_architecture(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip:
        return str(properties.gcnArchName).partition(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def tile_for(which: str, q: torch.Tensor, tokens: int) -> Tile:
    """The tile of a pass ("forward", "dq", "dkdv") for q's architecture, head size and dtype at T = tokens."""
    rows = TILES[architecture(q.device), which, q.shape[-1]]
    return next(tile for tile in rows if tokens <= tile.up_to)
