"""Attention on a GPU: ours against every SDPA backend and, where installed, FlashAttention-2 and 3.

    python -m benchmarks.gpu_attention            one row per shape and contender: TFLOP/s forward and
                                                  backward; then decoding: GB/s of the cache that is read
    python -m benchmarks.gpu_attention --tune     also times other tiles and prints the fastest as rows of
                                                  TILES

The report calls `rows()` and `decode_rows()`. Results are checked against fp64 with the 2x rule before a time
is taken; if a contender refuses a shape, its row says so.
"""

import argparse
import functools
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dnagpt_fast import ops
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention.reference import attention_decode_reference
from dnagpt_fast.ops.attention.rule import implementation_for

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
Decode = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Clock = Callable[[Callable[[], object]], float]


@dataclass(frozen=True)
class Shape:
    """Causal self-attention of B x H heads, T tokens, head size K."""

    B: int
    H: int
    T: int
    K: int

    def __str__(self) -> str:
        return f"B{self.B} H{self.H} T{self.T} K{self.K}"

    def flop(self, backward: bool) -> float:
        """2 products forward, 5 backward, half of the scores (FlashAttention's count, recomputation excluded)."""
        return (5 if backward else 2) * 2 * self.B * self.H * self.T**2 * self.K / 2


# 16 Ki tokens a call, the width of the published models
SHAPES = [
    *(Shape(16384 // T, 12, T, 64) for T in (512, 1024, 4096)),
    *(Shape(16384 // T, 64, T, 32) for T in (512, 4096)),
    *(Shape(16384 // T, 16, T, 128) for T in (512, 4096)),
]


def contenders(device: str) -> dict[str, Attention]:
    """Name -> causal attention of q, k, v (B, H, T, K). On the CPU: the default and plain torch."""

    def forced(name: str) -> Attention:
        def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with dispatch.using(attention=name):
                return ops.attention(q, k, v)  # type: ignore[return-value]

        return run

    if device == "cpu":
        return {"plain torch": forced("reference"), "ours (sdpa)": forced("sdpa")}

    def backend(kind: SDPBackend) -> Attention:
        def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(kind):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        return run

    found: dict[str, Attention] = {"ours (triton)": forced("triton"), "ours (rule)": forced("rule")}
    for kind in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        found[f"sdpa {kind.name.removesuffix('_ATTENTION').lower()}"] = backend(kind)
    for name, module in flash_attention_modules():
        found[name] = token_major(module.flash_attn_func)
    return found


def flash_attention_modules() -> Iterator[tuple[str, Any]]:
    """FlashAttention-2's and -3's interfaces, where installed."""
    for name, module in (("FlashAttention-2", "flash_attn"), ("FlashAttention-3", "flash_attn_interface")):
        try:
            yield name, importlib.import_module(module)
        except ImportError:
            continue


def token_major(function: Callable[..., Any]) -> Attention:
    """FlashAttention's call, which takes (B, T, H, K) and may return a tuple, with our arguments and
    result."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        o = function(*(x.transpose(1, 2) for x in (q, k, v)), causal=True)
        return (o[0] if isinstance(o, tuple) else o).transpose(1, 2)

    return run


def inputs(shape: Shape, dtype: torch.dtype, device: str) -> tuple[list[Tensor], Tensor]:
    """q, k, v as views of one packed projection (each a leaf), and the cotangent of o."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(shape.B, shape.T, 3, shape.H, shape.K, generator=generator).to(device, dtype)
    do = torch.randn(shape.B, shape.T, shape.H, shape.K, generator=generator).to(device, dtype)
    return [x.transpose(1, 2).detach().requires_grad_() for x in qkv.unbind(2)], do.transpose(1, 2)


def check(function: Attention, qkv: list[Tensor], do: Tensor) -> None:
    """Checks o and its gradients, for two heads of one sample, with the 2x rule. Raises AssertionError."""

    def results(run: Attention, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.detach()[:1, :2].to(dtype).requires_grad_() for x in qkv]
        o = run(*leaves)
        return [o.detach(), *torch.autograd.grad(o, leaves, do[:1, :2].to(dtype))]

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with dispatch.using(attention="reference"):
            return ops.attention(q, k, v)  # type: ignore[return-value]

    dtype = qkv[0].dtype
    truth, naive, ours = results(plain, torch.float64), results(plain, dtype), results(function, dtype)
    for name, t, n, o in zip(("o", "dq", "dk", "dv"), truth, naive, ours, strict=True):
        hold(name, o, n, t)


def hold(name: str, ours: Tensor, plain: Tensor, truth: Tensor) -> None:
    """Checks that the largest error of `ours` is at most twice plain torch's in the same dtype plus a few
    units."""
    allowed = 2 * (plain - truth).abs().max() + 4 * torch.finfo(plain.dtype).eps * truth.abs().max()
    error = (ours - truth).abs().max()
    assert error <= allowed, f"{name}: error {error:.2e}, allowed {allowed:.2e}"


def card_clock(function: Callable[[], object]) -> float:
    """Seconds of one call on the GPU: the median of Triton's do_bench, which clears the cache between
    calls."""
    from triton.testing import do_bench

    return do_bench(function, return_mode="median") / 1e3


def row(
    shape: Shape, name: str, function: Attention, dtype: torch.dtype, device: str, clock: Clock
) -> dict[str, Any]:
    """One line of the report. A refused shape is reported; a wrong result raises AssertionError."""
    found: dict[str, Any] = {"op": "attention", "shape": str(shape), "contender": name, "dtype": str(dtype)}
    qkv, do = inputs(shape, dtype, device)
    try:
        o = function(*qkv)
    except (RuntimeError, ValueError, NotImplementedError) as refusal:
        return found | {"refused": str(refusal).splitlines()[0]}
    check(function, qkv, do)
    with torch.no_grad():
        forward = clock(lambda: function(*qkv))
    backward = clock(lambda: torch.autograd.grad(o, qkv, do, retain_graph=True))
    found |= {"forward_ms": forward * 1e3, "backward_ms": backward * 1e3}
    found["forward_tflops"] = shape.flop(backward=False) / forward / 1e12
    found["backward_tflops"] = shape.flop(backward=True) / backward / 1e12
    if name.startswith("ours"):
        found["rule"] = implementation_for(qkv[0]).name
    return found


def rows(
    shapes: list[Shape] = SHAPES,
    dtype: torch.dtype = torch.bfloat16,
    device: str = "cuda",
    clock: Clock = card_clock,
) -> Iterator[dict[str, Any]]:
    """Every contender at every shape."""
    for shape, (name, function) in itertools.product(shapes, contenders(device).items()):
        yield row(shape, name, function, dtype, device, clock)


@dataclass(frozen=True)
class Cached:
    """One new token for each of B sequences whose caches of S slots are full, H heads, head size K."""

    B: int
    H: int
    S: int
    K: int

    def __str__(self) -> str:
        return f"decode B{self.B} H{self.H} S{self.S} K{self.K}"

    def bytes(self, dtype: torch.dtype) -> int:
        """Each cached key and value read once."""
        return 2 * self.B * self.H * self.S * self.K * dtype.itemsize


# one sequence, and a batch that fills a card; the shapes of the published models
CACHED = [Cached(B, H, S, K) for H, K in ((12, 64), (64, 32)) for S in (512, 4096) for B in (1, 32)]


def decode_contenders(device: str) -> dict[str, Decode]:
    """Name -> attention of q (B, H, 1, K) over caches (B, H, S, K) with lengths (B,)."""

    def forced(name: str) -> Decode:
        def run(q: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor) -> Tensor:
            with dispatch.using(attention_decode=name):
                return ops.attention_decode(q, k_cache, v_cache, lengths)

        return run

    if device == "cpu":
        return {"plain torch": forced("reference"), "ours (grouped)": forced("grouped")}

    def flash(module: Any) -> Decode:
        def run(q: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor) -> Tensor:
            q, k_cache, v_cache = (x.transpose(1, 2) for x in (q, k_cache, v_cache))
            o = module.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=lengths, causal=True)
            return o.transpose(1, 2)

        return run

    found: dict[str, Decode] = {"ours (triton)": forced("triton"), "sdpa, masked": forced("sdpa")}
    return found | {name: flash(module) for name, module in flash_attention_modules()}


def decode_rows(
    shapes: list[Cached] = CACHED,
    dtype: torch.dtype = torch.bfloat16,
    device: str = "cuda",
    clock: Clock = card_clock,
) -> Iterator[dict[str, Any]]:
    """Every contender at every shape, checked with the 2x rule against fp64."""
    for shape, (name, function) in itertools.product(shapes, decode_contenders(device).items()):
        generator = torch.Generator().manual_seed(0)
        q = torch.randn(shape.B, shape.H, 1, shape.K, generator=generator).to(device, dtype)
        stored = torch.randn(2, shape.B, shape.S, shape.H, shape.K, generator=generator).to(device, dtype)
        k_cache, v_cache = stored.transpose(2, 3)
        lengths = torch.full((shape.B,), shape.S, dtype=torch.int32, device=device)
        found: dict[str, Any] = {"op": "attention_decode", "shape": str(shape), "contender": name}
        found["dtype"] = str(dtype)
        try:
            o = function(q, k_cache, v_cache, lengths)
        except (RuntimeError, ValueError, NotImplementedError) as refusal:
            yield found | {"refused": str(refusal).splitlines()[0]}
            continue
        plain, _ = attention_decode_reference(q, k_cache, v_cache, lengths, scale=shape.K**-0.5)
        truth, _ = attention_decode_reference(
            q.double(), k_cache.double(), v_cache.double(), lengths, scale=shape.K**-0.5
        )
        hold("o", o, plain, truth)
        seconds = clock(functools.partial(function, q, k_cache, v_cache, lengths))
        yield found | {"us": seconds * 1e6, "gb_per_s": shape.bytes(dtype) / seconds / 1e9}


def tune(shapes: list[Shape] = SHAPES, device: str = "cuda", clock: Clock = card_clock) -> Iterator[str]:
    """Times every tile of this grid for each pass; yields the fastest as a row of attention_tiles.TILES."""
    from triton import OutOfResources

    from dnagpt_fast.ops import triton_settings
    from dnagpt_fast.ops.attention import launch as attention_triton
    from dnagpt_fast.ops.attention.tiles import Tile, tile_for

    family = triton_settings.family(torch.device(device, 0))
    for shape, which in itertools.product(shapes, ("forward", "dq", "dkdv")):
        qkv, do = inputs(shape, torch.bfloat16, device)
        o, _ = attention_triton.attention_triton(*qkv, scale=shape.K**-0.5)
        times: dict[Tile, float] = {}
        grid = itertools.product((32, 64, 128), (32, 64, 128), (4, 8), (2, 3), (False, True))
        for BT, BS, warps, stages, tma in grid:
            tile = Tile(BT, BS, warps, stages, specialize=tma and family == "blackwell", tma=tma)
            if tma and (which != "forward" or family not in ("hopper", "blackwell")):
                continue

            def chosen(kind: str, q: Tensor, tokens: int, which: str = which, tile: Tile = tile) -> Tile:
                return tile if kind == which else tile_for(kind, q, tokens)

            def call(which: str = which, qkv: list[Tensor] = qkv, do: Tensor = do, o: Tensor = o) -> object:
                if which == "forward":
                    with torch.no_grad():
                        return attention_triton.attention_triton(*qkv, scale=qkv[0].shape[-1] ** -0.5)
                return torch.autograd.grad(o, qkv, do, retain_graph=True)

            with mock.patch.object(attention_triton, "tile_for", chosen):
                try:
                    times[tile] = clock(call)
                except OutOfResources:
                    continue
        best = min(times, key=times.__getitem__)
        yield f'("{family}", "{which}", {shape.K}): ({best!r},),  # T = {shape.T}: {times[best] * 1e6:.0f} us'


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device")
        return 1
    for found in itertools.chain(rows(), decode_rows()):
        print(found, flush=True)
    if options.tune:
        for line in tune():
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
