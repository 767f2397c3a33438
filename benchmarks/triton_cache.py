"""Compiles Triton kernels for a card on a machine without one, into a cache folder that travels to the card.

    python -m benchmarks.triton_cache FOLDER --arch sm_90             every launch of the audit
    python -m benchmarks.triton_cache FOLDER --arch sm_90 --tune      and every tile that gpu_attention --tune times
    TRITON_CACHE_DIR=FOLDER python -m benchmarks.gpu_report           on the card: its minutes are not spent compiling

The card's machine needs the same version of Triton and the same sources. Kernels that are not in the folder are
compiled there as usual.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

os.environ["TRITON_INTERPRET"] = "0"  # read when triton is first imported, below

import torch
import triton
from triton.errors import TritonError

from benchmarks.compile_audit import PROVIDERS, named_launches
from benchmarks.gpu_attention import SHAPES, candidates, tile_instead
from benchmarks.traced_steps import as_on
from benchmarks.triton_launches import ARCHITECTURES, Launch, launches_go_to, target_of
from dnagpt_fast.ops import triton_settings


def tuned_launches(architecture: str) -> Iterator[Launch]:
    """The launches of every tile that `gpu_attention --tune` times, in bfloat16."""
    for shape in SHAPES:
        with mock.patch.object(triton_settings, "architecture", return_value=architecture):
            some = list(candidates(torch.device("cpu"), shape.K, shape.T))
        for which, tile in some:
            launches: list[Launch] = []
            to_list = launches_go_to(target_of(architecture), launches.append)
            with to_list, tile_instead(which, tile), as_on(architecture):
                qkv = torch.empty(1, shape.T, 3, shape.H, shape.K, dtype=torch.bfloat16)
                q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
                rest = (shape.K**-0.5, True, None, None, None)
                ops = torch.ops.dnagpt_fast
                o, lse = ops.attention_forward(q, k, v, *rest)
                ops.attention_backward(torch.empty_like(o), None, q, k, v, o, lse, *rest)
            yield from (launch for launch in launches if which in launch.kernel.__name__)


def launches(architecture: str, tune: bool) -> Iterator[Launch]:
    """Each kernel once."""
    seen = set()
    wanted = [launch for op in PROVIDERS for _, launch in named_launches(op, architecture)]
    for launch in [*wanted, *(tuned_launches(architecture) if tune else ())]:
        if launch.key not in seen:
            seen.add(launch.key)
            yield launch


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", required=True, choices=ARCHITECTURES)
    parser.add_argument("--tune", action="store_true", help="also the tiles that gpu_attention --tune times")
    options = parser.parse_args(arguments)
    triton.knobs.cache.dir = str(options.folder)
    count = failed = 0
    for launch in launches(options.arch, options.tune):
        try:
            launch.compile()
        except (
            RuntimeError,
            TritonError,
        ) as refusal:  # a tile that cannot be made; --tune leaves it out, too
            failed += 1
            print(f"{launch.kernel.__name__}: {str(refusal).splitlines()[0]}")
        count += 1
    print(f"{count - failed} kernels for {options.arch} in {options.folder}, {failed} could not be compiled")
    return 0


if __name__ == "__main__":
    sys.exit(main())
