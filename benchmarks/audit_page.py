"""The table of benchmarks.compile_audit as a Markdown page."""

from typing import Any

from benchmarks.triton_launches import ARCHITECTURES

PAGE_HEAD = """# Machine code of the kernels

Written by `python -m benchmarks.compile_audit --update` from compile_audit.json; {versions}. No GPU is needed.
{summary}

A cell of a Triton kernel: registers per thread / resident warps (AMD: waves) per SM (CU) / tensor-core instructions /
KiB of shared memory per block. Other counts (exponentials, fused multiply-adds, TMA, all instructions, threads) are in
the JSON. An empty cell: not compiled for this card.

A cell of a kernel of csrc/cuda (the last three sections): registers / warps / 16-byte loads and stores of global
memory / instructions that a lane executes per 16 bytes in the inner loop, and how many of them the integer pipe runs.
None has shared memory. The atomics are the integer sums of `gc_count` over windows that several warps count.
"""


def cell(row: dict[str, Any]) -> str:
    """The cell of one row, as PAGE_HEAD describes it."""
    if "per_16_bytes" in row:
        moved, executed = (
            f"{row['load_16']}+{row['store_16']}",
            f"{row['per_16_bytes']}, {row['integer_per_16_bytes']}",
        )
        return f"{row['registers']} / {row['occupancy']} / {moved} / {executed}"
    return (
        f"{row['registers']} / {row['occupancy']} / {row['tensor_core']} / {row['shared_bytes'] / 1024:.0f}"
    )


def page(compilers: dict[str, str], table: dict[str, dict[str, Any]]) -> str:
    """The page: one section per kernel, one line per case, one column per card."""
    cells: dict[str, dict[str, dict[str, str]]] = {}
    for key, row in table.items():
        kernel, case, architecture = key.split(" | ")
        cells.setdefault(kernel, {}).setdefault(case, {})[architecture] = cell(row)
    sums = {kind: sum(row[kind] for row in table.values()) for kind in ("spills", "stack_bytes", "atomics")}
    tensor = sum(row.get("tensor_core", 0) > 0 for row in table.values())
    summary = (
        f"{len(table)} kernels on {len(ARCHITECTURES)} cards, {tensor} of them with tensor-core instructions; together "
        f"{sums['spills']} spills, {sums['stack_bytes']} bytes of stack, {sums['atomics']} atomics."
    )
    versions = ", ".join(f"{compiler} {compilers[compiler]}" for compiler in sorted(compilers))
    lines = [PAGE_HEAD.format(versions=versions, summary=summary)]
    for kernel in sorted(cells):
        lines += [
            f"## {kernel}",
            "",
            f"| case | {' | '.join(ARCHITECTURES)} |",
            "|---" * (len(ARCHITECTURES) + 1) + "|",
        ]
        for case in sorted(cells[kernel]):
            found = cells[kernel][case]
            lines.append(f"| {case} | {' | '.join(found.get(card, '') for card in ARCHITECTURES)} |")
        lines.append("")
    return "\n".join(lines)
