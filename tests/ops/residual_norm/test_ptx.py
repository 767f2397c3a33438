"""The kernels of residual_norm compiled for three cards and run on the CPU: accesses, races, shuffled schedules."""

import pytest
import torch

from dnagpt_fast.ops.residual_norm import launch
from dnagpt_fast.ops.residual_norm.reference import residual_norm_reference
from tests import ptx
from tests.closeness import outputs_and_gradients

pytestmark = [pytest.mark.ptx, pytest.mark.usefixtures("poisoned_memory")]
HALF, FULL = torch.bfloat16, torch.float32
WRITTEN = {
    "residual_norm_forward_kernel": {"p_s", "p_y", "p_mean", "p_rstd"},
    "residual_norm_backward_kernel": {"p_dx", "p_db", "p_dweight", "p_dbias"},
    "residual_norm_sum_kernel": {"p_sum"},
}
NAMES = ("s", "y", "d stream", "d branch", "d weight", "d bias")


@pytest.mark.skipif(not ptx.interpreting(), reason="this process already compiles")
def test_in_a_process_that_compiles():
    ptx.rerun_without_the_interpreter(__file__)


@pytest.mark.skipif(ptx.interpreting(), reason="run by the test that starts a process that compiles")
@pytest.mark.parametrize("card", ["sm_80", "sm_90", "sm_100"])
# a width that divides nothing, several tiles of rows a program; a published width; each stream
@pytest.mark.parametrize(
    ("rows", "width", "stream", "bias"), [(90, 45, FULL, True), (90, 45, HALF, False), (9, 768, HALF, True)]
)
def test_compiled_against_fp64_under_three_schedules(monkeypatch, card, rows, width, stream, bias):
    monkeypatch.setattr(launch, "PROGRAMS", 2)
    inputs = [torch.randn(rows, width).to(stream), torch.randn(rows, width).to(HALF), torch.randn(width)]
    inputs += [torch.randn(width)] * bias
    cotangents = [torch.randn(rows, width) for _ in range(2)]

    def by(function):
        def run(*tensors):
            dtype = torch.float64 if tensors[0].dtype == torch.float64 else HALF
            given = tensors if bias else (*tensors, None)
            return function(*given, 1e-5, dtype)

        return run

    names = NAMES if bias else NAMES[:-1]

    def results(function, tensors):
        outputs, gradients = outputs_and_gradients(by(function), tensors, cotangents)
        return dict(zip(names, [*outputs, *gradients], strict=True))

    truth = results(residual_norm_reference, [x.double() for x in inputs])
    naive = results(residual_norm_reference, inputs)
    for ran in ptx.assert_right_under_every_schedule(
        WRITTEN, lambda: results(launch.residual_norm_triton, inputs), naive, truth, card=card
    ):
        assert set(ran) == set(WRITTEN)
