"""A small pre-training run for tests, in this process or in a separate one."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENOME = ROOT / "dnagpt_fast" / "data" / "hg19_chr22_20-21Mb.2bit"
CONTIG = "22:20000001-21000000"
# k = 3 has 189 tokens instead of 19,564: a step takes milliseconds, and 60 steps are enough to learn
# something.
TOML = f"""
[model]
max_len = 45
num_layers = 1
num_heads = 2
embedding_dim = 32
bias = true
[vocabulary]
k = 3
[data]
genomes = [{{ path = "{GENOME}", species = "human", held_out = ["{CONTIG}:900000-1000000"] }}]
[optimizer]
lr = 1e-2
[schedule]
warmup_steps = 5
[run]
steps = 12
batch_size = 8
device = "cpu"
[checkpoint]
every_steps = 4
[validation]
max_windows = 40
"""


def write_config(folder: Path) -> Path:
    path = folder / "settings.toml"
    path.write_text(TOML)
    return path


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    """`dnagpt-fast ARGUMENTS` in a separate process with one thread, so that its sums equal those of this
    process."""
    return subprocess.Popen(
        [sys.executable, "-m", "dnagpt_fast", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def metrics(run: Path) -> list[dict]:
    """The records without measured values, which differ between runs."""
    measured = ("seconds", "tokens_per_s", "bp_per_s", "mfu", "peak_memory_gib", "share_")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in record.items() if not key.startswith(measured)} for record in records
    ]
