"""Kernels compiled into a cache folder are found there again; the tuning times tiles near those of the table."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_attention import SEVERAL_BLOCKS, neighbours
from dnagpt_fast.ops.attention.tiles import Tile

ROOT = Path(__file__).resolve().parents[2]
TWICE = """
import sys
from unittest import mock
import triton
from benchmarks import triton_cache
triton.knobs.cache.dir = sys.argv[1]
tuned = list(triton_cache.tuned_launches("sm_90"))
print(len(tuned), "tiles of", sorted({launch.kernel.__name__ for launch in tuned}))
launch = next(x for x in tuned if "forward" in x.kernel.__name__)
first = launch.compile()
with mock.patch("triton.compiler.compiler.ASTSource.make_ir", side_effect=AssertionError("compiled again")):
    assert launch.compile().hash == first.hash
print("found again")
"""


@pytest.mark.slow
def test_a_kernel_is_compiled_once(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TWICE, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.splitlines()[-1] == "found again"
    kernels = ["attention_dkdv_kernel", "attention_dq_kernel", "attention_forward_kernel"]
    assert str(kernels) in run.stdout
    assert list(tmp_path.rglob("*.cubin"))


@pytest.mark.parametrize("which", SEVERAL_BLOCKS)
@pytest.mark.parametrize("fixed", [False, True])
def test_neighbours_differ_in_one_setting_or_leave_room_for_other_blocks(which, fixed):
    tile = Tile(128, 16, 8, 2, tma=True)
    found = neighbours(tile, which, fixed_stages=fixed)
    assert found[0] == tile
    assert len(set(found)) == len(found)
    several = {other for other in found if (other.BT, other.BS, other.warps) in SEVERAL_BLOCKS[which]}
    assert len(several) == len(SEVERAL_BLOCKS[which])
    assert {other.stages for other in found} == ({2} if fixed else {1, 2, 3})
    for other in set(found[1:]) - several:
        differing = [name for name in vars(tile) if getattr(tile, name) != getattr(other, name)]
        assert len(differing) == 1
    assert all(16 <= size <= 128 for other in found for size in (other.BT, other.BS))
