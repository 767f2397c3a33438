"""Start-up of the commands that users run, beside the start of Python and the import of torch.

python -m benchmarks.bench_start_up [--rounds 5]

Each command is a new process of its own, all in turn, and the median of the rounds is printed and recorded. The
output of each is checked in a first round, which also fills the system's file cache and writes Python's bytecode, as an
installation by pip does.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.contest import circumstances, record

ROOT = Path(__file__).resolve().parents[1]
FASTA_BP = 10_000
BELOW_BY_TORCH = 0.3
"""A command that needs torch may take so many seconds more than its import (benchmarks/README.md)."""
LIMITS = {"pack of 10 kb": 0.5, "info": 0.5, "--help": 0.5, "score --help": 0.5, "doctor": 5.0}


def commands(folder: Path) -> dict[str, tuple[list[str], str]]:
    """Name -> the command line and a word that its output must have."""
    fasta, twobit = folder / "small.fa", folder / "small.2bit"
    bases = "".join(np.random.default_rng(0).choice(list("ACGT"), FASTA_BP))
    fasta.write_text(f">small\n{bases}\n")
    ours = [sys.executable, "-m", "dnagpt_fast"]
    return {
        "python": ([sys.executable, "-c", "pass"], ""),
        "import torch": ([sys.executable, "-c", "import torch; print(torch.__version__)"], "."),
        "pack of 10 kb": ([*ours, "pack", str(fasta), str(twobit)], "10,000"),
        "info": ([*ours, "info", str(fasta)], "10,000"),
        "--help": ([*ours, "--help"], "pretrain"),
        "score --help": ([*ours, "score", "--help"], "--both-strands"),
        "score of 60 bp": (
            [*ours, "score", "dna_gpt6m_m", str(fasta), "--region", "small:0-60"],
            "small:0-60",
        ),
        "doctor": ([*ours, "doctor"], "compiled kernels"),
    }


def seconds_of(command: list[str], word: str, folder: Path) -> float:
    """Raises RuntimeError for a command that fails or does not print the word."""
    (folder / "small.2bit").unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    seconds = time.perf_counter() - began
    if done.returncode or word not in done.stdout + done.stderr:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds


def measure(rounds: int) -> dict[str, float]:
    """The median seconds of each command, after one round that is not counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        all_commands = commands(folder)
        found: dict[str, list[float]] = {name: [] for name in all_commands}
        for number in range(1 + rounds):
            for name, (command, word) in all_commands.items():
                seconds = seconds_of(command, word, folder)
                if number:
                    found[name].append(seconds)
    return {name: round(statistics.median(times), 3) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    median = measure(rounds)
    limits = {**LIMITS, "score of 60 bp": round(median["import torch"] + BELOW_BY_TORCH, 3)}
    for name, seconds in median.items():
        print(f"{name:16} {seconds:7.3f} s" + (f"   wanted {limits[name]:.2f}" if name in limits else ""))
    row = {"op": "start_up", "seconds": median, "wanted": limits, "rounds": rounds, **circumstances()}
    print(json.dumps(row["seconds"]))
    record(row)


if __name__ == "__main__":
    main()
