"""Builds check_kernels.cpp with the kernels, without Python, and runs it: under ASan and UBSan, and for ARM under qemu.

One command for both: pytest tests/native -m "slow or not slow"
"""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*sorted((ROOT / "csrc" / "cpu").glob("*.cpp")), Path(__file__).with_name("check_kernels.cpp")]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def build(folder: Path, compiler: str, *flags: str) -> Path:
    program = folder / "check_kernels"
    common = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc'}", *flags]

    def compiled(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        subprocess.run([*common, "-c", str(source), "-o", str(target)], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, SOURCES))
    subprocess.run([*common, *map(str, objects), "-pthread", "-o", str(program)], check=True)
    return program


@pytest.mark.slow
def test_under_sanitizers(tmp_path):
    compiler = os.environ.get("CXX", "c++")
    program = build(tmp_path, compiler, "-O1", "-g", *SANITIZE)
    environment = {key: value for key, value in os.environ.items() if key != "DNAGPT_FAST_CPU_ISA"}
    run = subprocess.run([program], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "scalar ok" in run.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")),
    reason="needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user)",
)
def test_neon_under_qemu(tmp_path):
    program = build(tmp_path, "aarch64-linux-gnu-g++", "-O2", "-static")
    run = subprocess.run(["qemu-aarch64", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.split() == ["scalar", "ok", "neon", "ok"]
