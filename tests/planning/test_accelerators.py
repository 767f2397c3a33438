"""The table of accelerators, and the measured peak of a CPU."""

import pytest
import torch

from dnagpt_fast.planning.accelerators import (
    ACCELERATORS,
    accelerator,
    accelerator_of,
    measured_peak,
    peak_flops,
)


@pytest.mark.parametrize(
    ("device_name", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA A10G", "a10"),
        ("Tesla V100-SXM2-32GB", "v100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
    ],
)
def test_a_device_is_known_by_its_drivers_name(device_name, name):
    found = accelerator_of(device_name)
    assert found is accelerator(name)


def test_an_unknown_device():
    assert accelerator_of("NVIDIA GeForce GT 710") is None
    with pytest.raises(ValueError, match=r"unknown GPU 'h1000'.*h100"):
        accelerator("h1000")


def test_the_table_is_in_order():
    assert len({known.name for known in ACCELERATORS}) == len(ACCELERATORS)
    for known in ACCELERATORS:
        assert known.peak_tflops["fp32"] <= max(known.peak_tflops.values())
        assert known.memory_gib > 0
        assert known.link_gb_s > 0


def test_the_peak_of_a_cpu_is_measured():
    flops, source = peak_flops(torch.device("cpu"), "fp32")
    assert 1e8 < flops < 1e14
    assert source == "measured matrix product, cpu fp32"
    assert measured_peak(torch.device("cpu"), "bf16", seconds=0.01) > 1e7
