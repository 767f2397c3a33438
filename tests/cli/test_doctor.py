"""`doctor` on machines with other drivers and devices, and without some packages."""

import ctypes
import tomllib
from pathlib import Path

import pytest
import torch

from dnagpt_fast.cli import doctor
from dnagpt_fast.ops import compiled

ROOT = Path(__file__).resolve().parents[2]


def findings() -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.examine()}


class Driver:
    def __init__(self, version: int) -> None:
        self.version = version

    def cuDriverGetVersion(self, place) -> int:
        place._obj.value = self.version
        return 0


@pytest.fixture
def machine(monkeypatch):
    """Simulates a machine with the given driver, device and build."""

    load_really = ctypes.CDLL

    def make(driver=None, capability=None, archs=("80", "90", "100", "120"), runtime=13000):
        def load(name, *options, **more):
            if name != "libcuda.so.1":  # torch, too, loads libraries on the first use of some of its parts
                return load_really(name, *options, **more)
            if driver is None:
                raise OSError("no such file")
            return Driver(driver)

        monkeypatch.setattr(ctypes, "CDLL", load)
        monkeypatch.setattr(compiled, "cuda_archs", lambda: list(archs))
        monkeypatch.setattr(compiled, "cuda_runtime", lambda: runtime)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (70 << 30, 80 << 30))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    return make


def test_without_a_driver(machine):
    machine()
    found = findings()
    assert found["NVIDIA driver"].ok
    assert "none" in found["NVIDIA driver"].message
    assert found["device"].message.endswith("torch sees no CUDA device")
    assert (
        found["CUDA kernels"].message == "sm_80, sm_90, sm_100, sm_120, and PTX for cards newer than sm_120"
    )


def test_with_driver_and_device(machine):
    machine(driver=13000, capability=(9, 0))
    found = findings()
    assert found["NVIDIA driver"] == doctor.Finding("NVIDIA driver", True, "supports CUDA 13.0")
    assert found["device"] == doctor.Finding(
        "device", True, "NVIDIA H100 (sm_90), 70.0 of 80.0 GiB free; CUDA kernels run as sm_90"
    )


def test_a_driver_older_than_the_runtime_is_named_with_its_fix(machine):
    machine(driver=12040, capability=(9, 0))
    found = findings()["NVIDIA driver"]
    assert not found.ok
    assert (
        "supports CUDA 12.4, the kernels were built with CUDA 13.0: install a newer driver" in found.message
    )
    machine(driver=12040, capability=(9, 0), runtime=12080)
    assert findings()["NVIDIA driver"].ok


def test_a_driver_that_torch_does_not_use(machine, monkeypatch):
    machine(driver=13000)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "torch was built without CUDA" in findings()["device"].message
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "torch needs CUDA 13.0" in findings()["device"].message


def test_a_device_without_kernels(machine):
    machine(driver=13000, capability=(9, 0), archs=(), runtime=0)
    found = findings()
    assert found["CUDA kernels"].ok
    assert "DNAGPT_FAST_CUDA=1 pip install" in found["CUDA kernels"].message
    assert not found["device"].ok
    machine(driver=13000, capability=(7, 5))
    assert not findings()["device"].ok
    assert "DNAGPT_FAST_CUDA_ARCHS=75 DNAGPT_FAST_CUDA=1 pip install" in findings()["device"].message


@pytest.mark.parametrize(
    ("capability", "way"),
    [
        ((7, 5), ""),
        ((8, 0), "sm_80"),
        ((8, 9), "sm_80"),
        ((9, 0), "sm_90"),
        ((10, 3), "sm_100"),
        ((11, 0), ""),  # between: too new for the machine code, too old for the PTX
        ((12, 1), "sm_120"),
        ((13, 0), "PTX of sm_120"),
    ],
)
def test_which_kernels_run_where(capability, way):
    assert doctor.runs_on(capability, ["80", "90", "100", "120"]) == way


def test_the_version_of_this_machines_driver_can_be_read():
    version = doctor.driver_version()
    assert version is None or version >= 10000


@pytest.mark.parametrize(
    ("installed", "ok", "message"),
    [
        (None, True, None),
        ("5.2.9", False, "5.2.9, tested with 5.3 to 5.24: pip install 'transformers>=5.3'"),
        ("5.3.0", True, "5.3.0, tested with 5.3 to 5.24"),
        ("5.24.7", True, "5.24.7, tested with 5.3 to 5.24"),
        ("5.25.0", True, "newer than tested"),
        ("6.0.0.dev0", True, "newer than tested"),
    ],
)
def test_a_transformers_that_was_not_tested_is_named(monkeypatch, installed, ok, message):
    really = doctor.version

    def version(name):
        if name != "transformers":
            return really(name)
        if installed is None:
            raise doctor.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "TESTED_TRANSFORMERS", ("5.3", "5.24"))
    found = findings().get("transformers")
    if installed is None:
        assert found is None
    else:
        assert found.ok is ok
        assert message in found.message


def test_the_oldest_transformers_tested_is_the_oldest_allowed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = settings["project"]["optional-dependencies"]["hf"]
    assert f"transformers>={doctor.TESTED_TRANSFORMERS[0]}" in wanted
