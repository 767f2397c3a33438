"""The CUDA kernels compiled for every card: the kept table obeys the rules, and nvcc still gives the same table."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import audit_cuda

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "benchmarks" / "compile_audit.json"
CARDS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
IDS = [f"{token} {k}" for token in ("uint16", "int32", "int64") for k in ("k6", "any k")]
KERNELS = [
    *(f"{kernel} | {ids}" for kernel in ("kmer_tokenize_kernel", "sample_batch_kernel") for ids in IDS),
    "gc_count_kernel | any window",
]
needs_nvcc = pytest.mark.skipif(
    audit_cuda.find_nvcc() is None,
    reason="no nvcc in CUDA_HOME or PATH: the CUDA kernels cannot be compiled here",
)


def audit(*arguments: str) -> str:
    """Runs the audit and returns its output. Fails if the audit fails."""
    command = [sys.executable, "-m", "benchmarks.compile_audit", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    return run.stdout


@pytest.mark.parametrize("card", CARDS)
def test_the_table_has_every_kernel_and_obeys_the_rules(card):
    rows = json.loads(TABLE.read_text())["rows"]
    for kernel in KERNELS:
        row = rows[f"{kernel} | {card}"]
        assert (row["spills"], row["stack_bytes"], row["shared_bytes"]) == (0, 0, 0), kernel
        assert row["load_16"] > 0, kernel
        if kernel.startswith("gc_count"):
            assert row["atomics"] <= 2
        else:
            assert (row["atomics"], row["store_16"]) == (0, 1), kernel


def test_the_build_compiles_what_the_table_holds():
    setup = (ROOT / "setup.py").read_text()
    (default,) = re.findall(r'DEFAULT_CUDA_ARCHS = "([\d ]+)"', setup)
    assert {f"sm_{arch}" for arch in default.split()} <= set(CARDS)
    flags = setup[setup.index("def nvcc_flags") :]
    for flag in audit_cuda.FLAGS[:2]:
        assert f'"{flag}"' in flags


def test_the_launch_path_calls_nothing_that_a_capture_forbids():
    """All runtime calls of csrc/cuda are allowed while a CUDA graph is captured, and none of them waits."""
    sources = (ROOT / "csrc" / "cuda").iterdir()
    called = {name for source in sources for name in re.findall(r"\bcuda[A-Z]\w*(?=\()", source.read_text())}
    assert called == {
        *("cudaGetDevice", "cudaSetDevice", "cudaDeviceGetAttribute", "cudaMemsetAsync"),
        *("cudaGetLastError", "cudaGetErrorString"),
    }


@needs_nvcc
def test_nvcc_still_gives_the_kept_row():
    assert "1 kernels, 0 complaints" in audit("--op", "gc_count", "--arch", "sm_90")


@needs_nvcc
def test_a_worse_row_fails(tmp_path):
    key = "gc_count_kernel | any window | sm_80"
    table = json.loads(TABLE.read_text())
    # "instructions" depends on the version of nvcc: it is compared only with the table's version
    table["compilers"]["nvcc"] = audit_cuda.version()
    table["rows"] = {key: table["rows"][key] | {"registers": 8, "load_16": 99}}
    worse = tmp_path / "table.json"
    worse.write_text(json.dumps(table))
    with pytest.raises(AssertionError, match=r"registers 8 -> \d+"):
        audit("--op", "gc_count", "--arch", "sm_80", "--table", str(worse))


@needs_nvcc
@pytest.mark.slow
def test_every_kernel_for_every_card():
    """nvcc compiles all sources for all cards: no warning, no broken rule, no row worse than the table's."""
    assert f"{len(KERNELS) * len(CARDS)} kernels, 0 complaints" in audit("--op", "cuda")


def test_rules_of_a_kernel():
    good = {"load_16": 1, "store_16": 1, "atomics": 0}
    assert audit_cuda.broken_laws("kmer_tokenize_kernel | uint16 k6", good) == []
    for kind, bad in (("load_16", 0), ("store_16", 0), ("atomics", 1)):
        assert len(audit_cuda.broken_laws("kmer_tokenize_kernel | uint16 k6", good | {kind: bad})) == 1
    assert audit_cuda.broken_laws("gc_count_kernel | any window", {"load_16": 1, "atomics": 2}) == []
    assert audit_cuda.broken_laws("gc_count_kernel | any window", {"load_16": 1, "atomics": 3}) != []


def listing(*lines: str) -> str:
    """Machine code as nvdisasm prints it, from mnemonics and labels."""
    place = itertools.count()
    return "\n".join(
        line if line.endswith(":") else f"        /*{16 * next(place):04x}*/               {line} ;"
        for line in lines
    )


def test_the_shortest_path_through_the_loop_is_counted():
    code = listing(
        "IMAD R1, R1, R1, R1",
        ".L_x_1:",
        "LOP3.LUT R2, R3, R3",
        "@!P0 BRA `(.L_x_2)",
        "LDG.E.128.CONSTANT R4, [R2]",
        "BRA `(.L_x_3)",
        ".L_x_2:",  # the long path: at the ends of a genome
        "LD.E.U8 R4, [R2]",
        "@P0 BRA `(.L_x_2)",
        ".L_x_3:",
        "IMAD R5, R4, R4, R4",
        "@P1 BRA P2, `(.L_x_4)",
        "STG.E.128 [R6], R4",
        ".L_x_4:",
        "@P3 BRA `(.L_x_1)",
        "EXIT",
    )
    # LOP3, BRA, LDG, BRA, IMAD, BRA, STG, BRA; of these only LOP3 uses the integer pipe
    assert audit_cuda.loop_cost(code) == {"per_16_bytes": 8, "integer_per_16_bytes": 1}
    with pytest.raises(ValueError, match="no loop"):
        audit_cuda.loop_cost(listing("LDG.E.128.CONSTANT R4, [R2]", "STG.E.128 [R6], R4", "EXIT"))


@pytest.mark.parametrize(
    ("mangled", "name"),
    [
        ("_ZN6dnagpt2aa20kmer_tokenize_kernelItLi6EEEvNS_10GenomeViewE", "kmer_tokenize_kernel | uint16 k6"),
        (
            "_ZN6dnagpt2aa19sample_batch_kernelIlLi0EEEvPKNS_10GenomeViewE",
            "sample_batch_kernel | int64 any k",
        ),
        ("_ZN6dnagpt2aa15gc_count_kernelENS_10GenomeViewE", "gc_count_kernel | any window"),
    ],
)
def test_names(mangled, name):
    assert audit_cuda.readable(mangled) == name
