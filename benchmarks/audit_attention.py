"""The attention kernels that benchmarks.compile_audit compiles: each pass, head size and kind of mask."""

from collections.abc import Callable, Iterator
from unittest import mock

import torch

from dnagpt_fast.ops import triton_settings
from dnagpt_fast.ops.attention import decode_kernels as attention_decode_triton
from dnagpt_fast.ops.attention import extend_kernel as attention_extend_triton
from dnagpt_fast.ops.attention import launch as attention_triton
from dnagpt_fast.ops.attention import tiles as attention_tiles

TOKENS = {"short": 512, "long": 4096, "64 tokens": 64, "128 tokens": 128}
THOROUGH = ("sm_80", "sm_90")


def cases(architecture: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every head size in bf16, causal and decoding; on THOROUGH cards also packed sequences and fp32.

    The long case only where the tiles depend on T; those of 64 and 128 tokens where the backward is one launch.
    """
    family = triton_settings.FAMILIES[architecture]
    for size in attention_tiles.HEAD_SIZES:
        yield _case(architecture, size, torch.bfloat16, "short", "causal")
        if any(len(attention_tiles.TILES[family, which, size]) > 1 for which in ("forward", "dq", "dkdv")):
            yield _case(architecture, size, torch.bfloat16, "long", "causal")
        for tile in attention_tiles.BLOCKS[family, size]:
            yield _case(architecture, size, torch.bfloat16, f"{tile.BT} tokens", "causal")
        yield _decode_case(size, torch.bfloat16)
        yield _extend_case(size, torch.bfloat16, 512)
        if architecture in THOROUGH:
            yield _case(architecture, size, torch.bfloat16, "short", "sequences")
            for tile in attention_tiles.BLOCKS[family, size]:
                yield _case(architecture, size, torch.bfloat16, f"{tile.BT} tokens", "sequences")
            yield _case(architecture, size, torch.float32, "short", "causal")
            yield _decode_case(size, torch.float32)
            yield _extend_case(size, torch.bfloat16, 4096)
            yield _extend_case(size, torch.float32, 512)


def _case(
    architecture: str, size: int, dtype: torch.dtype, length: str, kind: str
) -> tuple[str, Callable[[], object]]:
    def call() -> None:
        tokens = TOKENS[length]
        q, k, v = torch.empty(1, tokens, 3, 2, size, dtype=dtype).transpose(1, 3).unbind(2)
        key_mask = torch.empty(1, tokens, dtype=torch.bool) if kind == "padded" else None
        bound = torch.empty(tokens, dtype=torch.int32) if kind == "sequences" else None
        rest = (size**-0.5, kind != "full", key_mask, bound, bound)
        with mock.patch.object(triton_settings, "architecture", return_value=architecture):
            o, lse = torch.ops.dnagpt_fast.attention_forward(q, k, v, *rest)
            torch.ops.dnagpt_fast.attention_backward(torch.empty_like(o), None, q, k, v, o, lse, *rest)

    return f"K{size} {str(dtype).removeprefix('torch.')} {kind} {length}", call


def _decode_case(size: int, dtype: torch.dtype) -> tuple[str, Callable[[], object]]:
    def call() -> None:
        q = torch.empty(2, 4, 1, size, dtype=dtype)
        cache = torch.empty(2, 4, 1024, size, dtype=dtype)
        lengths = torch.empty(2, dtype=torch.int32)
        torch.ops.dnagpt_fast.attention_decode(q, cache, cache, lengths, size**-0.5)

    return f"K{size} {str(dtype).removeprefix('torch.')} decode", call


def _extend_case(size: int, dtype: torch.dtype, slots: int) -> tuple[str, Callable[[], object]]:
    def call() -> None:
        qkv = torch.empty(16, 3 * 4 * size, dtype=dtype)
        cache = torch.empty(2, 10, 4, slots, size, dtype=dtype)
        lengths = torch.empty(10, dtype=torch.int64)
        torch.ops.dnagpt_fast.attention_extend(qkv, *cache, lengths, size**-0.5)

    return f"K{size} {str(dtype).removeprefix('torch.')} extend {slots} slots", call


assert attention_extend_triton  # importing it registers the ops
assert attention_decode_triton
assert attention_triton
