"""Times several implementations in turn, takes the best of the rounds, and records the circumstances."""

import datetime
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dnagpt_fast.ops import report

RESULTS = "DNAGPT_BENCH_RESULTS"


def contest(
    benchmark: Any,
    op: str,
    contenders: dict[str, Callable[[], object]],
    work: dict[str, float],
    unit: str,
    against: str,
    rounds: int = 5,
) -> dict[str, float]:
    """Best seconds of each contender; `work` is the work of one call of each, in `unit`s.

    Prints, stores in the benchmark's extra_info and appends to the file named by DNAGPT_BENCH_RESULTS: rates,
    ratios of rates to the contender `against`, and the circumstances. pytest-benchmark times the first
    contender.
    """
    around = circumstances()  # before the rounds: a contender may force an instruction set
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):  # in turn, so that a slower machine slows all of them
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    best = {name: min(times) for name, times in seconds.items()}
    rate = {name: work[name] / best[name] for name in contenders}
    row = {
        "op": op,
        "unit": f"{unit}/s",
        "rate": {name: float(f"{value:.4g}") for name, value in rate.items()},
        f"ratio_to_{against}": {name: float(f"{value / rate[against]:.3g}") for name, value in rate.items()},
        "seconds": {name: float(f"{value:.4g}") for name, value in best.items()},
        "rounds": rounds,
        **around,
    }
    benchmark.extra_info.update(row)
    benchmark.pedantic(next(iter(contenders.values())), rounds=1, iterations=1)
    print(f"\n{json.dumps({name: row[name] for name in list(row)[:4]}, indent=1)}")
    record(row)
    return best


def circumstances() -> dict[str, Any]:
    """Of a figure: day, processor, threads, versions, instruction set and implementations."""
    return {
        "date": datetime.date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "machine": processor(),
        "torch": torch.__version__,
        **report(),
    }


def record(row: dict[str, Any]) -> None:
    """Appends a row to the file named by DNAGPT_BENCH_RESULTS, if it is set."""
    if path := os.environ.get(RESULTS):
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
