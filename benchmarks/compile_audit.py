"""Compile every Triton and CUDA kernel ahead of time for every card and read the machine code. Needs no GPU.

    python -m benchmarks.compile_audit                        all kernels, all cards; compares with compile_audit.json
    python -m benchmarks.compile_audit --op attention --arch sm_90 --case 'K64.*causal'
    python -m benchmarks.compile_audit --op cuda              the kernels of csrc/cuda, by nvcc (a minute)
    python -m benchmarks.compile_audit --update               make the table again (after a new compiler, a new tile),
                                                              and from it compile_audit.md, the page to read

    python -m benchmarks.compile_audit --op steps         what whole steps of the published models launch besides

An op with Triton kernels has a module named in PROVIDERS below, with one function

    def cases(architecture: str) -> Iterator[tuple[str, Callable[[], object]]]

that yields (case name, call). The call runs the op's own host function on small CPU tensors, with the tiles
that the op chooses on `architecture` ("sm_80" .. "gfx942"). Triton's launch is replaced during the call:
nothing is computed, and the code is compiled that a card would get. A row is one kernel of one case on one
card. The cases of "steps" are whole steps of the published models (traced_steps.py), with a row for each kernel
that no other case has: so every launch of training and inference has a row. CUDA_OPS are the sources
csrc/cuda/<op>.cu, which audit_cuda.py compiles; without nvcc they are left out, with a message.

Laws, independent of the table: no spill, no stack, no atomic, fits the card; tensor-core instructions in every
half-precision kernel whose source has a dot; no warning of ptxas about serialised wgmma or tcgen05 instructions;
16-byte loads and stores of global memory in the kernels of csrc/cuda.
Compared with the table within TOLERANCE, if the compiler is the one of the table: registers, shared memory,
occupancy, instruction counts. Prints the differences; the exit status is 1 for a broken law, a worse row, or
a row that is only in the table or only compiled now.
"""

import argparse
import ast
import importlib
import inspect
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"  # read when triton is first imported, below

import triton
from triton.backends.nvidia.compiler import get_ptxas

from benchmarks import audit_cuda
from benchmarks.audit_page import page
from benchmarks.triton_launches import ARCHITECTURES, Launch, launches_go_to, target_of
from dnagpt_fast.output_files import whole

PROVIDERS = {
    "attention": "benchmarks.audit_attention",
    "combined_loss": "benchmarks.audit_combined_loss",
    "sampling": "benchmarks.audit_sampling",
    "residual_norm": "benchmarks.audit_residual_norm",
    "mlp": "benchmarks.audit_mlp",
    "steps": "benchmarks.traced_steps",
}
STEP = "step "  # the case names of "steps" begin with it
CUDA_OPS = ("kmer_tokenize", "gc_count", "sample_batch")
TABLE = Path(__file__).with_suffix(".json")
Row = dict[str, Any]

# largest allowed relative change for the worse; occupancy may only rise. 0: must not get worse
TOLERANCE = {"registers": 0.05, "shared_bytes": 0.0, "occupancy": 0.0, "instructions": 0.1, "exp2": 0.02}
TOLERANCE |= {"per_16_bytes": 0.05, "integer_per_16_bytes": 0.05}
# largest allowed relative change in either direction
SAME = {"tensor_core": 0.0, "fused_multiply_add": 0.1, "tma": 0.0, "load_16": 0.0, "store_16": 0.0}

# CUDA C++ Programming Guide, technical specifications per compute capability; MI300 ISA guide for gfx942.
# shared memory of an SM and of a block (bytes), warps and blocks an SM holds
LIMITS = {
    "sm_80": (164 << 10, 163 << 10, 64, 32),
    "sm_86": (100 << 10, 99 << 10, 48, 16),
    "sm_89": (100 << 10, 99 << 10, 48, 24),
    "sm_90": (228 << 10, 227 << 10, 64, 32),
    "sm_100": (228 << 10, 227 << 10, 64, 32),
    "sm_120": (100 << 10, 99 << 10, 48, 24),
    "gfx942": (64 << 10, 64 << 10, 32, 16),
}
COUNTED = {
    "tensor_core": r"(HMMA|HGMMA|UTC\w*MMA|DMMA|v_s?mfma)",
    # REDUX is not atomic; with ATOMS.OR and .AND a Blackwell block allocates and frees its tensor memory
    "atomics": r"((ATOMG?|REDG?|UTMAREDG)(\.|$)|ATOMS\.(?!OR$|AND$)|(global|flat|buffer|ds)_(atomic|add|cmpst))",
    "exp2": r"(MUFU\.EX2|v_exp_f32)",
    "fused_multiply_add": r"(FFMA|v_(pk_)?fma|v_fmac)",
    "tma": r"(UTMALDG|UTMASTG|UBLKCP)",
}


def tool(name: str) -> str:
    """A CUDA binary tool of Triton's own wheel."""
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this Triton has no {name}")
    return str(path)


def counts(mnemonics: list[str], kinds: dict[str, str]) -> Row:
    """The count of each kind of instruction, and of all instructions."""
    seen = Counter(mnemonics)
    row: Row = {kind: 0 for kind in kinds}
    for mnemonic, times in seen.items():
        for kind, pattern in kinds.items():
            if re.match(pattern, mnemonic):
                row[kind] += times
    return row | {"instructions": sum(seen.values())}


def read_cubin(
    cubin: bytes, kinds: dict[str, str] = COUNTED, also: Callable[[str], Row] = lambda code: {}
) -> dict[str, Row]:
    """Registers, spills, static shared memory and counts of each kernel in an NVIDIA binary, by its mangled name.

    `also` is given the machine code of a kernel as text and adds to its row.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        usage = subprocess.run(
            [tool("cuobjdump"), "--dump-resource-usage", path], check=True, capture_output=True, text=True
        ).stdout
        sass = subprocess.run(
            [tool("nvdisasm"), "-c", path], check=True, capture_output=True, text=True
        ).stdout
    found = re.findall(r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage)
    if not found:
        raise ValueError(f"cuobjdump gave no resource usage: {usage!r}")
    code = dict(part.split(":", 1) for part in re.split(r"^\.text\.", sass, flags=re.MULTILINE)[1:])
    rows: dict[str, Row] = {}
    for name, registers, stack, shared in found:
        mnemonics = re.findall(
            r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", code[name], re.MULTILINE
        )
        if not mnemonics:
            raise ValueError(f"nvdisasm gave no instruction of {name}")
        spills = sum(mnemonic.startswith(("LDL", "STL")) for mnemonic in mnemonics)
        rows[name] = {
            "registers": int(registers),
            "spills": spills,
            "stack_bytes": int(stack),
            **counts(mnemonics, kinds),
            "shared_bytes": int(shared),
            **also(code[name]),
        }
    return rows


def read_amdgcn(text: str) -> Row:
    """The same from AMD assembly, whose metadata names registers and spills."""

    def meta(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        if not found:
            raise ValueError(f"the AMD assembly has no .{name}")
        return int(found[1])

    mnemonics = re.findall(r"^\s+([a-z]+_[a-z0-9_]+)\s", text, re.MULTILINE)
    return {
        "registers": meta("vgpr_count"),
        # scalar registers spill to lanes of vector registers, not to memory
        "spills": meta("vgpr_spill_count"),
        "stack_bytes": meta("private_segment_fixed_size"),
        **counts(mnemonics, COUNTED),
    }


def occupancy(architecture: str, registers: int, shared_bytes: int, threads: int, tensor_columns: int) -> int:
    """Warps (AMD: waves) that are resident on one SM (CU) at a time; 0 if a block does not fit."""
    shared_sm, shared_block, most_warps, most_blocks = LIMITS[architecture]
    if shared_bytes > shared_block:
        return 0
    if architecture.startswith("gfx"):
        warps = threads // 64
        # four SIMDs, each with 512 registers a lane in steps of 8 and at most 8 waves
        by_registers = 4 * min(8, 512 // max(8, math.ceil(registers / 8) * 8)) // warps
        by_shared = shared_sm // shared_bytes if shared_bytes else most_blocks
    else:
        warps = threads // 32
        # a warp gets registers in steps of 256; the system reserves 1 KiB of shared memory per block
        by_registers = 65536 // (math.ceil(registers / 8) * 8 * 32) // warps
        by_shared = shared_sm // (shared_bytes + 1024)
    blocks = min(by_registers, by_shared, most_warps // warps, most_blocks)
    if tensor_columns:
        blocks = min(blocks, 512 // tensor_columns)
    return blocks * warps


def has_dot(launch: Launch) -> bool:
    """Whether the kernel, or a jitted function that it calls, has a tl.dot."""
    todo, seen = [launch.kernel], set()
    while todo:
        function = todo.pop()
        seen.add(function)
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function.fn)))):
            if isinstance(node, ast.Attribute) and node.attr == "dot":
                return True
            called = function.fn.__globals__.get(node.id) if isinstance(node, ast.Name) else None
            if isinstance(called, triton.runtime.JITFunction) and called not in seen:
                todo.append(called)
    return False


def warnings_of(ptx: str, capability: int) -> list[str]:
    """What ptxas says about asynchronous products that it had to serialise, such as "(C7515) ..."."""
    if not re.search(r"\b(wgmma|tcgen05)\.", ptx):
        return []
    (card,) = re.findall(r"^\.target (\w+)", ptx, re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(ptx)
        command = [get_ptxas(capability).path, "-v", f"--gpu-name={card}", path, "-o", f"{path}.cubin"]
        said = subprocess.run(command, check=True, capture_output=True, text=True)
    return sorted(set(re.findall(r"\(C75\d\d\)[^\n]*", said.stdout + said.stderr)))


def audit(launch: Launch, architecture: str) -> tuple[Row, list[str]]:
    """Compiles one launch: what its machine code has, and the warnings of ptxas."""
    compiled = launch.compile()
    if architecture.startswith("gfx"):
        row = read_amdgcn(compiled.asm["amdgcn"])
        threads = compiled.metadata.num_warps * 64
        tensor_columns, warnings = 0, []
    else:
        (row,) = read_cubin(compiled.asm["cubin"]).values()
        # with warp specialisation there are more warps than num_warps
        threads = int(re.findall(r"\.reqntid (\d+)", compiled.asm["ptx"])[0])
        tensor_columns = compiled.metadata.tmem_size
        warnings = warnings_of(compiled.asm["ptx"], launch.target.arch)
    shared = compiled.metadata.shared
    row |= {"threads": threads, "shared_bytes": shared}
    row["occupancy"] = occupancy(architecture, row["registers"], shared, threads, tensor_columns)
    return row, warnings


def laws_of_all(row: Row) -> list[str]:
    """The laws that a row breaks; they hold for every compiler."""
    laws = [f"{row[kind]} {kind}" for kind in ("spills", "stack_bytes") if row[kind]]
    if not row["occupancy"]:
        laws.append(f"does not fit the card ({row['shared_bytes']} bytes of shared memory)")
    return laws


def broken_laws(row: Row, needs_tensor_cores: bool) -> list[str]:
    """The laws that a row of a Triton kernel breaks."""
    laws = laws_of_all(row)
    if row["atomics"]:
        laws.append(f"{row['atomics']} atomics")
    if needs_tensor_cores and not row["tensor_core"]:
        laws.append("no tensor-core instruction")
    return laws


def worse(row: Row, kept: Row) -> list[str]:
    """Where `row` is worse than the row of the table, by more than the tolerance."""
    found = []
    for kind, tolerance in TOLERANCE.items():
        if kind not in kept:
            continue
        sign = -1 if kind == "occupancy" else 1
        if sign * (row[kind] - kept[kind]) > tolerance * kept[kind]:
            found.append(f"{kind} {kept[kind]} -> {row[kind]}")
    for kind, tolerance in SAME.items():
        if kind in kept and abs(row[kind] - kept[kind]) > tolerance * kept[kind]:
            found.append(f"{kind} {kept[kind]} -> {row[kind]}")
    return found


def rows(ops: list[str], architectures: list[str], wanted: str) -> Iterator[tuple[str, Row, list[str]]]:
    """(key, row, broken laws) of every kernel whose key matches the pattern."""
    for op in ops:
        for architecture in architectures:
            made = cuda_rows if op in CUDA_OPS else triton_rows
            yield from made(op, architecture, wanted)


def cuda_rows(op: str, architecture: str, wanted: str) -> Iterator[tuple[str, Row, list[str]]]:
    """The same for the kernels of csrc/cuda/<op>.cu."""
    if architecture.startswith("gfx"):
        return
    for name, row in read_cubin(
        audit_cuda.cubin(op, architecture), audit_cuda.COUNTED, audit_cuda.loop_cost
    ).items():
        kernel = audit_cuda.readable(name)
        key = f"{kernel} | {architecture}"
        row["threads"] = audit_cuda.THREADS
        row["occupancy"] = occupancy(
            architecture, row["registers"], row["shared_bytes"], audit_cuda.THREADS, 0
        )
        if re.search(wanted, key):
            yield key, row, laws_of_all(row) + audit_cuda.broken_laws(kernel, row)


def triton_rows(op: str, architecture: str, wanted: str) -> Iterator[tuple[str, Row, list[str]]]:
    """The same for the kernels that the op's host function launches."""
    for key, launch in named_launches(op, architecture, wanted):
        row, warnings = audit(launch, architecture)
        half = any(kind in launch.source.signature.values() for kind in ("*fp16", "*bf16"))
        laws = broken_laws(row, half and has_dot(launch))
        yield key, row, laws + [f"ptxas: {warning}" for warning in warnings]


def named_launches(op: str, architecture: str, wanted: str = "") -> Iterator[tuple[str, Launch]]:
    """The launches of an op with Triton kernels that have a row, and its key; nothing is compiled."""
    others = [other for other in PROVIDERS if other != op] if op == "steps" else []
    known = {
        launch.key for other in others for _, some in launches_of(other, architecture) for launch in some
    }
    for case, launches in launches_of(op, architecture):
        variants: dict[str, list[object]] = {}
        for launch in launches:
            # a kernel that is launched again gets another row if its compile-time arguments differ
            seen = variants.setdefault(launch.kernel.__name__, [])
            if launch.key in known or launch.key in seen:
                continue
            seen.append(launch.key)
            if op == "steps":
                known.add(launch.key)
            variant = f" ({len(seen)})" if len(seen) > 1 else ""
            key = f"{launch.kernel.__name__}{variant} | {case} | {architecture}"
            if re.search(wanted, key):
                yield key, launch


def launches_of(op: str, architecture: str) -> Iterator[tuple[str, list[Launch]]]:
    """(case, its launches) of an op with Triton kernels; nothing is compiled."""
    target = target_of(architecture)
    for case, call in importlib.import_module(PROVIDERS[op]).cases(architecture):
        launches: list[Launch] = []
        with launches_go_to(target, launches.append):
            call()
        if not launches:
            raise ValueError(f"{op}, case {case!r} on {architecture}: nothing was launched")
        yield (STEP if op == "steps" else "") + case, launches


def op_of(key: str) -> str:
    """The op whose cases gave the row of this key."""
    kernel, case, _ = key.split(" | ")
    if case.startswith(STEP):
        return "steps"
    return next(op for op in [*PROVIDERS, *CUDA_OPS] if kernel.startswith(op))


def compiler_of(key: str) -> str:
    """ "nvcc" or "triton": which compiler made the row of this key."""
    return "nvcc" if key.startswith(CUDA_OPS) else "triton"


def read_table(path: Path) -> tuple[dict[str, str], dict[str, Row]]:
    """(compiler -> version, key -> row); empty if there is no table yet."""
    if not path.is_file():
        return {}, {}
    table = json.loads(path.read_text())
    return table["compilers"], table["rows"]


def write_table(path: Path, compilers: dict[str, str], table: dict[str, Row]) -> None:
    """Writes the table, one row per line and sorted, so that diffs are short; and the page."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(table[key])}" for key in sorted(table))
    with whole(path) as json_file, whole(path.with_suffix(".md")) as page_file:
        json_file.write_text(f'{{"compilers": {json.dumps(compilers)}, "rows": {{\n{lines}\n}}}}\n')
        page_file.write_text(page(compilers, table))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--op",
        action="append",
        choices=[*PROVIDERS, *CUDA_OPS, "triton", "cuda"],
        help="only this op; may be repeated; triton: all with Triton kernels; cuda: all of csrc/cuda",
    )
    parser.add_argument(
        "--arch", action="append", choices=ARCHITECTURES, help="only this card; may be repeated"
    )
    parser.add_argument(
        "--case", default="", help="only keys 'kernel | case | card' that this pattern is found in"
    )
    parser.add_argument("--update", action="store_true", help="write the rows into the table")
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args(arguments)
    versions = {"triton": triton.__version__, "nvcc": audit_cuda.version()}
    ops: list[str] = []
    for op in options.op or [*PROVIDERS, "cuda"]:
        ops += {"triton": list(PROVIDERS), "cuda": list(CUDA_OPS)}.get(op, [op])
    if not versions["nvcc"] and set(ops) & set(CUDA_OPS):
        if options.op:
            parser.error("no nvcc in CUDA_HOME or PATH, which the kernels of csrc/cuda need")
        print("no nvcc in CUDA_HOME or PATH: the kernels of csrc/cuda are left out")
        ops = list(PROVIDERS)
    architectures = options.arch or list(ARCHITECTURES)

    kept_versions, kept = read_table(options.table)
    complaints: list[str] = []
    fresh: dict[str, Row] = {}
    for key, row, laws in rows(ops, architectures, options.case):
        print(f"{key}: {json.dumps(row)}", flush=True)
        complaints += [f"{key}: {law}" for law in laws]
        fresh[key] = row
        if options.update:
            continue
        compiler = compiler_of(key)
        if key not in kept:
            complaints.append(f"{key}: not in the table")
        elif kept_versions[compiler] == versions[compiler]:
            complaints += [f"{key}: {change}" for change in worse(row, kept[key])]
    if not fresh:
        complaints.append(f"no kernel matches {options.case!r}")
    gone = [
        key
        for key in kept
        if not options.case and key not in fresh and key.rsplit(" | ")[-1] in architectures
    ]
    gone = [key for key in gone if op_of(key) in ops]
    made_by = {compiler_of(key) for key in fresh}
    if options.update:
        kept_versions |= {compiler: versions[compiler] for compiler in made_by}
        table = {key: row for key, row in kept.items() if key not in gone} | fresh
        write_table(options.table, kept_versions, table)
    else:
        complaints += [f"{key}: in the table, but no longer compiled" for key in gone]
        for compiler in sorted(made_by):
            was = kept_versions.get(compiler, "(none)")
            if was != versions[compiler]:
                print(
                    f"the table was made with {compiler} {was}, this is {versions[compiler]}: "
                    "only the laws were checked; make the table again with --update"
                )
    print(f"{len(fresh)} kernels, {len(complaints)} complaints", *complaints, sep="\n  ")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
