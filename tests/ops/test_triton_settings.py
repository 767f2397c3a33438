"""The settings of all Triton ops: where they may run, and the precision of their fp32 products."""

import numpy
import pytest
import torch
import triton

from dnagpt_fast.ops import triton_settings


@pytest.fixture
def precision_set_back():
    yield
    torch.backends.cuda.matmul.fp32_precision = "none"


def test_fp32_products_are_exact_unless_tf32_was_allowed(precision_set_back):
    x = torch.zeros(1)
    assert triton_settings.product_constants(x)["PRECISION"] == "ieee"
    torch.set_float32_matmul_precision("high")  # the legacy setting
    assert triton_settings.product_constants(x)["PRECISION"] == "tf32"
    torch.set_float32_matmul_precision("highest")
    assert triton_settings.product_constants(x)["PRECISION"] == "ieee"
    torch.backends.cuda.matmul.fp32_precision = (
        "tf32"  # the current setting, after which the legacy getter raises
    )
    with pytest.raises(RuntimeError):
        torch.get_float32_matmul_precision()
    assert triton_settings.product_constants(x)["PRECISION"] == "tf32"
    assert triton_settings.product_constants(x.bfloat16())["PRECISION"] == "ieee"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_sums_are_in_fp32_or_wider(dtype):
    x = torch.zeros(1, dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert triton_settings.accumulator(x) == wide
    assert str(triton_settings.product_constants(x)["ACC"]) == ("fp64" if dtype == torch.float64 else "fp32")


def test_cpu_tensors_need_the_interpreter(monkeypatch):
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    triton_settings.check_may_run("combined_loss", torch.zeros(1), "chunked")
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    with pytest.raises(
        RuntimeError, match=r'TRITON_INTERPRET=1 .* dispatch.using\(combined_loss="chunked"\)'
    ):
        triton_settings.check_may_run("combined_loss", torch.zeros(1), "chunked")
    triton_settings.check_may_run("combined_loss", torch.zeros(1, device="meta"), "chunked")


@pytest.mark.parametrize(
    ("triton_is", "numpy_is", "works"),
    [
        ("3.6.0", "2.4.1", False),
        ("3.6.0", "2.3.5", True),
        ("3.7.1", "2.5.0", True),
        ("3.6.0", "1.26.4", True),
    ],
)
def test_an_interpreter_that_does_not_work_is_named(monkeypatch, triton_is, numpy_is, works):
    monkeypatch.setattr(triton, "__version__", triton_is)
    monkeypatch.setattr(numpy, "__version__", numpy_is)
    if works:
        assert triton_settings.interpreter_fault() == ""
        return
    with pytest.raises(
        RuntimeError, match=r"mlp: the interpreter of Triton 3.6.0 .* numpy 2.4.1: wanted Triton 3.7"
    ):
        triton_settings.check_may_run("mlp", torch.ones(1), "dense")
