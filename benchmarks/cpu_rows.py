"""All CPU figures of this machine in one run, into results/cpu_<instruction set>.jsonl and the tables made from it.

    python -m benchmarks.cpu_rows                    about ten minutes on two cores; nothing else should run
    python -m benchmarks.cpu_rows --only bench_calls bench_start_up

A row replaces the row of the same op in the file, and only if its script ended well. Then the tables of
benchmarks/README.md and README.md are written again (benchmarks/tables.py). `bench_fasta_pack` takes the file named by
DNAGPT_BENCH_FASTA, otherwise random bases; `bench_text_encode` also runs the official code in DNAGPT_OFFICIAL.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.contest import RESULTS
from dnagpt_fast.ops import compiled

ROOT = Path(__file__).resolve().parents[1]
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
SCRIPTS = {
    "bench_kmer_tokenize": [*PYTEST, "benchmarks/bench_kmer_tokenize.py"],
    "bench_gc_count": [*PYTEST, "benchmarks/bench_gc_count.py"],
    "bench_sampler": [*PYTEST, "benchmarks/bench_sampler.py"],
    "bench_text_encode": [*PYTEST, "benchmarks/bench_text_encode.py"],
    "bench_calls": [*PYTEST, "benchmarks/bench_calls.py"],
    "bench_call_overhead": [*PYTEST, "benchmarks/bench_call_overhead.py"],
    "bench_fasta_pack": [*PYTEST, "benchmarks/bench_fasta_pack.py"],
    "bench_variants": ["-m", "benchmarks.bench_variants"],
    "bench_start_up": ["-m", "benchmarks.bench_start_up"],
}


def results_of(isa: str) -> Path:
    return tables.RESULTS / f"cpu_{isa}.jsonl"


def run(name: str) -> list[dict[str, Any]]:
    """The rows of one script. Raises CalledProcessError if it fails; its output is on the terminal."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.jsonl")
        environment = {**os.environ, RESULTS: str(rows), "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, *SCRIPTS[name]], cwd=ROOT, env=environment, check=True)
        return [json.loads(line) for line in rows.read_text().splitlines()]


def merge(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows of an op that the file has are replaced in place; the others are appended."""
    old = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    of_op = {row["op"]: row for row in [*old, *rows]}
    path.write_text("".join(json.dumps(row) + "\n" for row in of_op.values()))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), metavar="SCRIPT")
    failed = []
    for name in parser.parse_args().only:
        began = time.monotonic()
        try:
            merge(results_of(compiled.cpu_isa()), run(name))
        except subprocess.CalledProcessError as error:
            failed.append(f"{name} ended with {error.returncode}")
        print(f"== {name}: {time.monotonic() - began:.0f} s", flush=True)
    tables.write()
    print("\n".join([f"rows in {results_of(compiled.cpu_isa())}", *failed]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
