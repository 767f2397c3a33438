"""The settings of all Triton ops: where they may run, and the precision of their fp32 products."""

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
