"""Inputs of the attention tests, and functions that run an implementation on them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from dnagpt_fast import ops
from dnagpt_fast.ops import dispatch

KINDS = ("causal", "full", "padded", "padded full", "sequences", "sequences full", "sequences padded")


@dataclass(frozen=True)
class Case:
    """B, H, T, K, a kind of mask, and a dtype.

    padded: a third of the keys, the first three (so that causal rows 0..2 see no key), and the whole first sample
    sequences: lengths 0, 1, about T/3 and the rest, with tokens outside every sequence at both ends
    """

    B: int
    H: int
    T: int
    K: int
    kind: str = "causal"
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.B}x{self.H}x{self.T}x{self.K}-{self.kind.replace(' ', '-')}-{dtype}"

    def options(self) -> dict[str, object]:
        """Keyword arguments of ops.attention."""
        options: dict[str, object] = {"causal": "full" not in self.kind}
        if "padded" in self.kind:
            key_mask = torch.rand(self.B, self.T, generator=torch.Generator().manual_seed(1)) > 1 / 3
            key_mask[:, :3] = False
            if self.B > 1:
                key_mask[0] = False
            options["key_mask"] = key_mask
        if "sequences" in self.kind:
            first, last = min(2, self.T), max(self.T - 1, 0)
            third = first + (last - first) // 3
            bounds = sorted({first, min(first + 1, last), third, last} | {first})
            options["cu_seqlens"] = torch.tensor([bounds[0], *bounds], dtype=torch.int32)
        return options

    def inputs(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """([packed qkv (B, T, 3, H, K)], cotangents of o and lse)."""
        generator = torch.Generator().manual_seed(0)
        qkv = torch.randn(self.B, self.T, 3, self.H, self.K, generator=generator, dtype=torch.float64)
        do = torch.randn(self.B, self.H, self.T, self.K, generator=generator, dtype=torch.float64)
        dlse = torch.randn(self.B, self.H, self.T, generator=generator, dtype=torch.float64)
        wide = torch.promote_types(self.dtype, torch.float32)
        return [qkv.to(self.dtype)], [do.to(self.dtype), dlse.to(wide)]

    def function(self, implementation: str) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """packed qkv -> (o, lse) by the named implementation; -inf of a row without a key is replaced by -1 in lse."""

        def run(qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
            with dispatch.using(attention=implementation):
                o, lse = ops.attention(q, k, v, return_lse=True, **self.options())
            # -inf has no gradient to compare; the -1 shows that it is in the same rows
            return o, lse.where(lse != -torch.inf, -1.0)

        return run


NAMES = ["o", "lse", "dqkv"]
