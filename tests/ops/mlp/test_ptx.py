"""The kernels of the MLP compiled for three cards and run on the CPU: accesses, races, shuffled schedules."""

import pytest
import torch

from dnagpt_fast.ops.mlp import launch
from dnagpt_fast.ops.mlp.reference import mlp_reference
from tests import ptx
from tests.closeness import outputs_and_gradients

pytestmark = [pytest.mark.ptx, pytest.mark.usefixtures("poisoned_memory")]
WRITTEN = {"mlp_up_kernel": {"p_wide", "p_gelu"}, "mlp_dwide_kernel": {"p_dwide"}}
NAMES = ("y", "dx", "d up", "d up bias", "d down", "d down bias")


@pytest.mark.skipif(not ptx.interpreting(), reason="this process already compiles")
def test_in_a_process_that_compiles():
    ptx.rerun_without_the_interpreter(__file__)


@pytest.mark.skipif(ptx.interpreting(), reason="run by the test that starts a process that compiles")
@pytest.mark.parametrize("card", ["sm_80", "sm_90", "sm_100"])
# rows and columns that fill no tile, and a width that fills no step; several steps, so that a stage is used again
@pytest.mark.parametrize(
    ("rows", "width", "dtype", "bias"),
    [(150, 40, torch.bfloat16, True), (70, 320, torch.float16, False), (70, 48, torch.float32, True)],
    ids=str,
)
def test_compiled_against_fp64_under_three_schedules(card, rows, width, dtype, bias):
    generator = torch.Generator().manual_seed(0)
    wide = 2 * width + 8

    def numbers(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=generator)).to(dtype)

    inputs = [numbers(rows, width), numbers(wide, width, scale=width**-0.5)]
    inputs += [numbers(wide)] * bias + [numbers(width, wide, scale=wide**-0.5)] + [numbers(width)] * bias
    cotangents = [numbers(rows, width)]

    names = NAMES if bias else [name for name in NAMES if "bias" not in name]

    def results(function, tensors):
        def run(*given):
            return function(*given) if bias else function(*given[:2], None, given[2], None)

        outputs, gradients = outputs_and_gradients(run, tensors, cotangents)
        return dict(zip(names, [*outputs, *gradients], strict=True))

    truth = results(mlp_reference, [x.double() for x in inputs])
    naive = results(mlp_reference, inputs)
    for ran in ptx.assert_right_under_every_schedule(
        WRITTEN, lambda: results(launch.mlp_triton, inputs), naive, truth, card=card
    ):
        assert [*ran] == ["mlp_up_kernel", "mlp_dwide_kernel"]
        if dtype != torch.float32:
            assert all(ptx.runs(ran, kernel, ptx.PRODUCT[card]) for kernel in ran)
