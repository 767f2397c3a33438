"""Limits by memory and instruction issue for the kernels of csrc/cuda on each card: roofline.md, from
compile_audit.json.

python -m benchmarks.roofline        writes the page; a test compares it with the table
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnagpt_fast.output_files import whole

PAGE = Path(__file__).with_suffix(".md")
TABLE = Path(__file__).with_name("compile_audit.json")
BASES_PER_TOKEN, BASES_PER_BYTE = 6, 4
TOKEN_BYTES = {"uint16": 2, "int32": 4, "int64": 8}


@dataclass(frozen=True)
class Card:
    """Values from the makers' data sheets; the clock is the one of the stated tensor peak."""

    name: str
    architecture: str
    multiprocessors: int
    ghz: float
    gb_per_s: int

    def lanes_per_s(self, per_clock: int) -> float:
        """Lane instructions per second, from those per clock and multiprocessor."""
        return self.multiprocessors * per_clock * self.ghz * 1e9


CARDS = (
    Card("A100 SXM 80 GB", "sm_80", 108, 1.41, 2039),
    Card("RTX 3090", "sm_86", 82, 1.695, 936),
    Card("L40S", "sm_89", 142, 2.52, 864),
    Card("RTX 4090", "sm_89", 128, 2.52, 1008),
    Card("H100 SXM", "sm_90", 132, 1.83, 3350),
    Card("B200", "sm_100", 148, 1.85, 8000),
    Card("RTX 5090", "sm_120", 170, 2.41, 1792),
)
# lane instructions per clock and multiprocessor: CUDA C++ Programming Guide, arithmetic instructions
ISSUE, INTEGER, POPULATION_COUNT = 128, 64, 16

HEAD = """# Tokenize, GC count and sampling: limits on each card, from arithmetic and the compiled code

Nothing here was measured on a GPU. Written by `python -m benchmarks.roofline` from compile_audit.json (nvcc {nvcc}).
Attention has its own page ([attention_roofline.md](attention_roofline.md)); the arithmetic of the loss is in
[combined_loss.md](../docs/combined_loss.md).

The lowest of three limits decides:

- memory: an id of a 6-mer reads 6 bases, {read} bytes, and writes itself; GC reads {gc:.2f} bytes per base and writes
  two numbers per window. Each byte counts once: overlapping windows, and bytes shared by neighbouring lanes, come
  from cache.
- issue: a multiprocessor issues {issue} lane instructions per clock (four warps). The instructions that a lane needs
  per 16 bytes are counted in the machine code: once around the inner loop, with both loads, away from N, edges and
  row ends.
- the integer pipe: {integer} lane instructions per clock. It runs logic, shifts, byte permutations, compares and
  adds; multiply-adds and dot products run on other pipes. (Consumer Blackwell may do twice as many; this is not
  assumed.)

Not included: the work of a warp once per part of at most 192 x 16 bytes (read and check its window, search N blocks,
set up weights). Counted in the compiled PTX on a CPU, uint16: 24 lane instructions per id for one long window, a
sixth more than the loop alone; for windows of 510 ids (two or three rounds of a warp) 56, or 87 with idle lanes. The
latter is 355 G ids per second by an H100's issue, 37 % of its memory rate. Launches of about 3 to 5 us each are not
included either. They dominate small batches: 64 windows of 510 k-mers are 128 warps and 114 kB, 34 ns of an H100's
memory.

"share" is the limit as a part of the memory rate: 100 % if only memory matters. The target is 85 % of the device's
copy rate.
"""


def bound(card: Card, moved: float, executed: float, integer: float) -> tuple[list[float], float]:
    """(memory, issue and integer limits, in units per second; the lowest as a share of the first).

    moved       bytes per unit
    executed    lane instructions per unit, of which `integer` run on the integer pipe
    """
    limits = [
        card.gb_per_s * 1e9 / moved,
        card.lanes_per_s(ISSUE) / executed,
        card.lanes_per_s(INTEGER) / integer,
    ]
    return limits, min(limits) / limits[0]


def row(card: Card, what: str, limits: list[float], share: float) -> str:
    giga = " | ".join(f"{limit / 1e9:,.0f}" for limit in limits)
    return f"| {card.name} ({card.architecture}) | {what} | {giga} | {share:.0%} |"


def page(table: dict[str, Any]) -> str:
    rows, read = table["rows"], BASES_PER_TOKEN / BASES_PER_BYTE
    head = HEAD.format(
        nvcc=table["compilers"]["nvcc"], read=read, gc=1 / BASES_PER_BYTE, issue=ISSUE, integer=INTEGER
    )
    lines = [head, "## kmer_tokenize, 6-mers: G ids per second", ""]
    lines += ["| card | ids | memory | issue | integer pipe | share |", "|---|---|---|---|---|---|"]
    for card in CARDS:
        for dtype, size in TOKEN_BYTES.items():
            kept = rows[f"kmer_tokenize_kernel | {dtype} k6 | {card.architecture}"]
            ids = 16 / size
            executed, integer = kept["per_16_bytes"] / ids, kept["integer_per_16_bytes"] / ids
            what = f"{dtype}: {executed:.1f} instructions, {integer:.1f} integer"
            lines.append(row(card, what, *bound(card, read + size, executed, integer)))
    lines += ["", "## gc_count, long windows: G bases per second", ""]
    lines += ["| card | per base | memory | issue | integer pipe | share |", "|---|---|---|---|---|---|"]
    for card in CARDS:
        kept = rows[f"gc_count_kernel | any window | {card.architecture}"]
        # the four population counts per 16 bytes run on another pipe, a quarter as wide as the integer pipe
        bases = 16 * BASES_PER_BYTE
        integer = max(kept["integer_per_16_bytes"], 4 * INTEGER / POPULATION_COUNT) / bases
        executed = kept["per_16_bytes"] / bases
        what = f"{executed:.2f} instructions, 4 population counts in {bases}"
        lines.append(row(card, what, *bound(card, 1 / BASES_PER_BYTE, executed, integer)))
    lines += ["", "## sample_batch, uint16 6-mers with GC and labels: G ids per second", ""]
    lines += ["| card | per id | memory | issue | integer pipe | share |", "|---|---|---|---|---|---|"]
    for card in CARDS:
        kept = rows[f"sample_batch_kernel | uint16 k6 | {card.architecture}"]
        gc = rows[f"gc_count_kernel | any window | {card.architecture}"]
        # two warps read the window, one to tokenize and one to count: it is loaded from memory once
        counted = BASES_PER_TOKEN / (16 * BASES_PER_BYTE)
        executed = kept["per_16_bytes"] / 8 + gc["per_16_bytes"] * counted
        integer = kept["integer_per_16_bytes"] / 8 + gc["integer_per_16_bytes"] * counted
        what = f"{executed:.1f} instructions, {integer:.1f} integer"
        lines.append(row(card, what, *bound(card, read + 2, executed, integer)))
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    with whole(PAGE) as file:
        file.write_text(page(json.loads(TABLE.read_text())))
    print(PAGE)
