"""The CUDA kernels of csrc/cuda that benchmarks.compile_audit reads: each source compiled by nvcc for one card."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

CSRC = Path(__file__).resolve().parents[1] / "csrc"
# the flags of setup.py; warnings are errors
FLAGS = ["-std=c++17", "-O3", f"-I{CSRC}", "-Werror", "all-warnings"]
THREADS = 128  # kThreadsPerBlock of csrc/cuda/launch.cuh
TOKENS = {"t": "uint16", "i": "int32", "l": "int64"}  # mangled names of the id types
COUNTED = {
    # compare-and-swap is excluded: it reports the first bad window and changes no result
    "atomics": r"(ATOMG?|REDG?|ATOMS)\.(?!E\.CAS)",
    "load_16": r"LDG\.E\.128",
    "loads": r"(LDG|LD)\.",
    "store_16": r"STG\.E\.128",
    "stores": r"(STG|ST)\.",
}
# instructions that other pipes run, such as multiply-adds and dot products
OTHER_PIPES = r"(IMAD|IDP|FFMA|LDG?\b|STG?\b|LDC|BRA|BSSY|BSYNC|NOP|U[A-Z]|R2UR|POPC|WARPSYNC|BREAK)"


def find_nvcc() -> str | None:
    """nvcc of CUDA_HOME, then of PATH; None if there is none."""
    home = os.environ.get("CUDA_HOME")
    if home and (nvcc := Path(home, "bin", "nvcc")).is_file():
        return str(nvcc)
    return shutil.which("nvcc")


def version() -> str:
    """nvcc's version, such as "13.0.88"; empty without nvcc."""
    nvcc = find_nvcc()
    if nvcc is None:
        return ""
    printed = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"V([\d.]+)", printed)
    if not found:
        raise ValueError(f"{nvcc} --version names no version: {printed!r}")
    return found[1]


def cubin(op: str, architecture: str) -> bytes:
    """csrc/cuda/<op>.cu compiled for one card. Raises FileNotFoundError without nvcc, RuntimeError where it fails."""
    nvcc = find_nvcc()
    if nvcc is None:
        raise FileNotFoundError("no nvcc in CUDA_HOME or PATH")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "kernels.cubin")
        command = [nvcc, "-cubin", *FLAGS, f"-arch={architecture}", str(CSRC / "cuda" / f"{op}.cu")]
        done = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"nvcc, {op}.cu for {architecture}: {done.stdout}{done.stderr}")
        return target.read_bytes()


def readable(mangled: str) -> str:
    """_Z..20kmer_tokenize_kernelItLi6E.. -> "kmer_tokenize_kernel | uint16 k6"; k = 0 means any k."""
    found = re.search(r"\d([a-z_]+_kernel)(?:I(\w)Li(\d)E)?", mangled)
    if not found:
        raise ValueError(f"{mangled}: not the name of a kernel here")
    kernel, token, k = found.groups()
    if token is None:
        return f"{kernel} | any window"
    return f"{kernel} | {TOKENS[token]} {'any k' if k == '0' else f'k{k}'}"


def broken_laws(kernel: str, row: dict[str, int]) -> list[str]:
    """Laws for these kernels only: 16-byte loads and stores; no atomics except integer sums in memory."""
    laws = []
    if not row["load_16"]:
        laws.append("no 16-byte load")
    if kernel.startswith("gc_count_kernel"):
        if (
            row["atomics"] > 2
        ):  # G + C and known bases of a window that several warps count: exact in any order
            laws.append(f"{row['atomics']} atomics")
        return laws
    if not row["store_16"]:
        laws.append("no 16-byte store")
    if row["atomics"]:
        laws.append(f"{row['atomics']} atomics")
    return laws


def loop_cost(code: str) -> dict[str, int]:
    """Instructions that one lane executes per 16 bytes in the kernel's inner loop: all, and those of the
    integer pipe.

    They are counted on the shortest path around the loop that stores 16 bytes (or, without such a store,
    loads them) through each of its read-only loads: the path of a chunk without N, away from the ends of the
    genome and the row.
    """
    mnemonics: list[str] = []
    jumps: dict[int, tuple[str, bool]] = {}  # place -> (label, always taken)
    labels: dict[str, int] = {}
    for line in code.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(mnemonics)
        elif found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(@\S+\s+)?([A-Z][A-Z0-9_.]*)(.*)", line):
            predicate, mnemonic, operands = found.groups()
            if target := re.search(r"`\((\.L_x_\d+)\)", operands):
                conditional = predicate or not re.match(r"\s+`", operands)
                if mnemonic.startswith("BRA"):
                    jumps[len(mnemonics)] = (target[1], not conditional)
            mnemonics.append(mnemonic)

    def after(place: int) -> list[int]:
        label, always = jumps.get(place, ("", False))
        if mnemonics[place].startswith(("EXIT", "RET")):
            return []
        return ([labels[label]] if label else []) + ([] if always else [place + 1])

    def way(start: int, end: int) -> list[int]:
        """The shortest path from start (excluded) to end (included), reversed."""
        came: dict[int, int] = {}
        todo = [start]
        while todo and end not in came:
            reached = []
            for place in todo:
                for later in after(place):
                    if later < len(mnemonics) and later not in came:
                        came[later] = place
                        reached.append(later)
            todo = reached
        path = [end]
        while len(path) == 1 or path[-1] != start:
            path.append(came[path[-1]])
        return path[:-1]

    def around(stops: Sequence[int]) -> list[int]:
        return [place for one, other in pairwise([*stops, stops[0]]) for place in way(one, other)]

    stores = [i for i, mnemonic in enumerate(mnemonics) if mnemonic.startswith("STG.E.128")]
    loops = [range(labels[label], end + 1) for end, (label, _) in jumps.items() if labels[label] <= end]
    rounds: list[tuple[float, list[int], int]] = []
    for loop in loops:
        loads = [i for i in loop if mnemonics[i].startswith("LDG") and mnemonics[i].endswith("CONSTANT")]
        inner = not any(
            other != loop and set(other) <= set(loop) and set(loads) & set(other) for other in loops
        )
        stored = [i for i in loop if i in stores]
        if loads and inner and bool(stored) == bool(stores):
            path = around(loads + stored)
            chunks = len(stored) or len(loads)
            rounds.append((len(path) / chunks, path, chunks))
    if not rounds:
        raise ValueError("no loop that moves 16 bytes at a time")
    _, path, chunks = min(rounds)
    integer = sum(not re.match(OTHER_PIPES, mnemonics[place]) for place in path)
    return {"per_16_bytes": -(-len(path) // chunks), "integer_per_16_bytes": -(-integer // chunks)}
