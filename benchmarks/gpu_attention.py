"""Attention on a GPU: ours against every SDPA backend and, where installed, FlashAttention-2 and 3.

    python -m benchmarks.gpu_attention            one row per shape and contender: TFLOP/s forward and
                                                  backward; then decoding: GB/s of the cache that is read
    python -m benchmarks.gpu_attention --tune     also times the neighbours of each tile and prints the
                                                  fastest as rows of TILES; with the cache of
                                                  benchmarks.triton_cache it takes about two minutes

The report calls `rows()` and `decode_rows()`. Results are checked against fp64 with the 2x rule before a time
is taken; if a contender refuses a shape, its row says so.
"""

import argparse
import functools
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from dnagpt_fast.ops.attention.tiles import Tile, tile_for
from dnagpt_fast.ops.triton_settings import family, triton_version

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


def graph_clock(function: Callable[[], object]) -> float:
    """Seconds of one call in a CUDA graph, without its launches. Raises RuntimeError if it cannot be captured."""
    from triton.testing import do_bench_cudagraph

    return do_bench_cudagraph(function, return_mode="median") / 1e3


def longest_kernel(function: Callable[[], object]) -> str:
    """The name of the GPU kernel that takes longest in one call: what SDPA, or the rule, really ran."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        function()
        torch.cuda.synchronize()
    times = {event.key: event.self_device_time_total for event in profile.key_averages()}
    return max(times, key=times.__getitem__)[:80]


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
    if device == "cuda":
        found["kernel"] = longest_kernel(lambda: function(*(x.detach() for x in qkv)))
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
    clock: Clock = graph_clock,
) -> Iterator[dict[str, Any]]:
    """Every contender at every shape, checked with the 2x rule against fp64. A call that cannot be captured in a
    graph is timed with its launches, and its row says so."""
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
        call = functools.partial(function, q, k_cache, v_cache, lengths)
        try:
            seconds = clock(call)
        except RuntimeError:
            seconds = card_clock(call)
            found["with_launches"] = True
        yield found | {"us": seconds * 1e6, "gb_per_s": shape.bytes(dtype) / seconds / 1e9}


# Hopper, Blackwell: (BT, BS, warps) of tiles with two or more blocks on an SM, so that one block's softmax overlaps
# another's products. By the machine code for sm_90, K = 64 forward: 128 x 128, 8 warps: 1 block; 128 x 64, 8: 2;
# 64 x 128, 4: 3; 64 x 64, 4: 4 blocks.
SEVERAL_BLOCKS = {
    "forward": ((128, 64, 8), (64, 128, 4), (64, 64, 4)),
    "dq": ((64, 64, 4), (64, 32, 4), (128, 32, 8)),
    "dkdv": ((64, 64, 4), (32, 64, 4), (32, 128, 8)),
}


def neighbours(tile: Tile, which: str, *, fixed_stages: bool) -> list[Tile]:
    """A tile, those that differ in one size, by a factor of two, or in warps or stages, and those of SEVERAL_BLOCKS."""
    found = [tile]
    for BT, BS in ((2, 1), (1, 2), (1 / 2, 1), (1, 1 / 2)):
        found.append(replace(tile, BT=int(tile.BT * BT), BS=int(tile.BS * BS)))
    found.append(replace(tile, warps=12 - tile.warps))
    found += [replace(tile, BT=BT, BS=BS, warps=warps) for BT, BS, warps in SEVERAL_BLOCKS[which]]
    if not fixed_stages:
        found += [replace(tile, stages=stages) for stages in (1, 2, 3) if stages != tile.stages]
    return [
        one
        for one in dict.fromkeys(found)
        if 16 <= one.BT <= 128 and 16 <= one.BS <= 128 and one.warps in (4, 8)
    ]


def candidates(device: torch.device, size: int, tokens: int) -> Iterator[tuple[str, Tile]]:
    """(pass, tile) of everything that `tune` times for a head size in bfloat16."""
    q = torch.empty(1, 1, 1, size, dtype=torch.bfloat16, device=device)
    for which in ("forward", "dq", "dkdv"):
        # Triton 3.6 forgets a fence in the backward's pipeline on Hopper (attention/tiles.py): other stages are wrong.
        unfenced = triton_version() < (3, 7) and family(device) == "hopper" and which != "forward"
        for tile in neighbours(tile_for(which, q, tokens), which, fixed_stages=unfenced):
            yield which, tile


@contextmanager
def tile_instead(which: str, tile: Tile) -> Iterator[None]:
    """Inside the block one pass uses `tile`."""
    from dnagpt_fast.ops.attention import launch

    def chosen(kind: str, q: Tensor, tokens: int) -> Tile:
        return tile if kind == which else tile_for(kind, q, tokens)

    with mock.patch.object(launch, "tile_for", chosen):
        yield


def tune(shapes: list[Shape] = SHAPES, device: str = "cuda", clock: Clock = card_clock) -> Iterator[str]:
    """Times the neighbours of each pass's tile whose results hold by the 2x rule; yields the fastest as a row of
    attention/tiles.py, and then all times of that pass."""
    from triton import OutOfResources

    from dnagpt_fast.ops.attention.launch import attention_triton

    card = family(torch.device(device, 0))
    for shape in shapes:
        qkv, do = inputs(shape, torch.bfloat16, device)
        scale = shape.K**-0.5
        o, _ = attention_triton(*qkv, scale=scale)

        def forward(qkv: list[Tensor] = qkv, scale: float = scale) -> object:
            with torch.no_grad():
                return attention_triton(*qkv, scale=scale)

        def backward(qkv: list[Tensor] = qkv, do: Tensor = do, o: Tensor = o) -> object:
            return torch.autograd.grad(o, qkv, do, retain_graph=True)

        times: dict[str, dict[Tile, float]] = {}
        for which, tile in candidates(torch.device(device, 0), shape.K, shape.T):
            with tile_instead(which, tile):
                try:
                    check(contenders(device)["ours (triton)"], qkv, do)
                    seconds = clock(forward if which == "forward" else backward)
                except OutOfResources:
                    continue
                except AssertionError as wrong:
                    yield f"# {shape} {which} {tile!r}: wrong: {wrong}"
                    continue
            times.setdefault(which, {})[tile] = seconds
        for which, of_tile in times.items():
            best = min(of_tile, key=of_tile.__getitem__)
            yield f'("{card}", "{which}", {shape.K}): ({best!r},),  # T = {shape.T}: {of_tile[best] * 1e6:.0f} us'
            for tile, seconds in sorted(of_tile.items(), key=lambda item: item[1]):
                yield f"#   {seconds * 1e6:8.0f} us  {tile!r}"


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
