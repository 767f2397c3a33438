"""The table of benchmarks.compile_audit as a page to read."""

from typing import Any

from benchmarks.triton_launches import ARCHITECTURES

PAGE_HEAD = """# What the compiler makes of the Triton kernels

Written by `python -m benchmarks.compile_audit --update` from compile_audit.json; Triton {version}, no card needed.
{summary}

A cell: registers a thread / warps (AMD: waves) alive on an SM (CU) / tensor-core instructions / KiB of shared memory
of a block. The rest (exponentials, fused multiply-adds, TMA, all instructions, threads) stands in the JSON. Empty: not
compiled for that card.
"""


def page(version: str, table: dict[str, dict[str, Any]]) -> str:
    """The table for readers: one section a kernel, a line a case, a column a card."""
    cells: dict[str, dict[str, dict[str, str]]] = {}
    for key, row in table.items():
        kernel, case, architecture = key.split(" | ")
        cells.setdefault(kernel, {}).setdefault(case, {})[architecture] = (
            f"{row['registers']} / {row['occupancy']} / {row['tensor_core']} / {row['shared_bytes'] / 1024:.0f}"
        )
    sums = {kind: sum(row[kind] for row in table.values()) for kind in ("spills", "stack_bytes", "atomics")}
    tensor = sum(row["tensor_core"] > 0 for row in table.values())
    summary = (
        f"{len(table)} kernels on {len(ARCHITECTURES)} cards, {tensor} of them with tensor-core instructions; together "
        f"{sums['spills']} spills, {sums['stack_bytes']} bytes of stack, {sums['atomics']} atomics."
    )
    lines = [PAGE_HEAD.format(version=version, summary=summary)]
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
