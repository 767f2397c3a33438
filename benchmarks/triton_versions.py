"""The laws of benchmarks.compile_audit under several versions of Triton, each in an environment of its own.

    python -m benchmarks.triton_versions                                     every version below, on sm_90
    python -m benchmarks.triton_versions --version 3.6.0 --version 3.9.0 --arch sm_90 --arch sm_100
    python -m benchmarks.triton_versions --update                            writes triton_versions.md; cells of other
                                                                             versions and cards stay as they are

A version is installed by pip into a temporary folder that comes before the installed Triton; torch stays as it is. The
laws hold for every compiler (no spill, no stack, no atomic, fits the card, tensor cores, no serialised products); the
numbers of compile_audit.json are those of one version and are not compared. Some tiles depend on the version
(ops/attention/tiles.py). Takes some minutes per version and card.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.triton_launches import ARCHITECTURES
from dnagpt_fast.output_files import whole

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_suffix(".md")
VERSIONS = ("3.6.0", "3.7.1", "3.8.0", "3.9.0")
PAGE_HEAD = """# The compiled kernels under several versions of Triton

Written by `python -m benchmarks.triton_versions --update`. A cell: the date, what was compiled, the
most registers of a kernel, and the laws that are broken (none, if nothing is said). No GPU is needed.

"""


def install(version: str, folder: Path) -> None:
    """Triton of this version in a folder for PYTHONPATH. Raises CalledProcessError if pip finds none."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(folder),
        f"triton=={version}",
    ]
    subprocess.run(command, check=True)


def audit(folder: Path, architecture: str) -> tuple[dict[str, dict[str, int]], list[str]]:
    """(rows by key, complaints) of the audit with the Triton in `folder`."""
    table = folder / "no_table.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.compile_audit",
        "--arch",
        architecture,
        "--table",
        str(table),
        "--update",
        "--op",
        "triton",
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "TRITON_INTERPRET": "0",
    }
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    complaints = re.search(r"^\d+ kernels, (\d+) complaints(.*)", run.stdout, re.MULTILINE | re.DOTALL)
    if complaints is None:
        raise RuntimeError(
            f"the audit on {architecture} ended with status {run.returncode}: {run.stderr[-2000:]}"
        )
    rows = json.loads(table.read_text())["rows"]
    table.unlink()
    return rows, [line.strip() for line in complaints[2].splitlines() if line.strip()]


def page(cells: dict[tuple[str, str], str]) -> str:
    """The page of (version, card) -> cell; a pair that was not compiled has an empty cell."""
    versions = sorted({version for version, _ in cells}, key=lambda x: [int(part) for part in x.split(".")])
    cards = [card for card in ARCHITECTURES if any(card == one for _, one in cells)]
    lines = [f"| Triton | {' | '.join(cards)} |", "|---" * (len(cards) + 1) + "|"]
    for version in versions:
        lines.append(f"| {version} | {' | '.join(cells.get((version, card), '') for card in cards)} |")
    return PAGE_HEAD + "\n".join(lines) + "\n"


def cells_of(text: str) -> dict[tuple[str, str], str]:
    """(version, card) -> cell of a page."""
    heads, _, *rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    cards = [head.strip() for head in heads[1:]]
    return {
        (version.strip(), card): cell.strip()
        for version, *row in rows
        for card, cell in zip(cards, row, strict=True)
        if cell.strip()
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="append", help=f"may be repeated; default: {' '.join(VERSIONS)}")
    parser.add_argument(
        "--arch", action="append", choices=ARCHITECTURES, help="may be repeated; default: sm_90"
    )
    parser.add_argument("--update", action="store_true", help=f"write the table into {PAGE.name}")
    options = parser.parse_args(arguments)
    versions, architectures = options.version or list(VERSIONS), options.arch or ["sm_90"]
    cells: dict[tuple[str, str], str] = {}
    broken = 0
    for version in versions:
        with tempfile.TemporaryDirectory() as folder:
            install(version, Path(folder))
            for architecture in architectures:
                began = time.monotonic()
                rows, complaints = audit(Path(folder), architecture)
                broken += len(complaints)
                most = max(row["registers"] for row in rows.values())
                broken_ones = [
                    complaint.replace(" | ", ", ") for complaint in complaints
                ]  # a bar ends a cell
                made = f"{time.strftime('%Y-%m-%d')}: {len(rows)} kernels, {most} registers"
                cells[version, architecture] = "; ".join([made, *broken_ones])
                print(
                    f"Triton {version}, {architecture}, {time.monotonic() - began:.0f} s:",
                    *complaints,
                    sep="\n  ",
                )
    print(page(cells))
    if options.update:
        kept = cells_of(PAGE.read_text()) if PAGE.is_file() else {}
        with whole(PAGE) as path:
            path.write_text(page(kept | cells))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
