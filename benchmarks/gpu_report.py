"""Checks and times everything on the GPU of this machine, in under ten minutes, into one JSON file and one
page.

    python -m benchmarks.gpu_report                       writes gpu_report.json and gpu_report.md here
    python -m benchmarks.gpu_report --to FOLDER --only attention --only train_step
    python -m benchmarks.gpu_report --rehearse            on the CPU, at toy sizes: tests the code, gives no
                                                          figures

In this order: the environment (a driver too old for the kernels ends the report with status 2 before anything fails);
compute-sanitizer's memcheck and racecheck over benchmarks.gpu_small, each in a separate process; `pytest -m
gpu tests/gpu`; then timings. With many cores the checks run at the same time, and a process beside them
compiles what the training steps need. If a check fails, the rest still runs, because the failure may explain
it, but the report says so and the status is 1. Each section is a separate process with a time limit: a section that
hangs, or breaks the GPU's context, loses only its own rows. The report is written again after each section.
Without a CUDA device: status 2, and a message with the reason.
"""

import argparse
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dnagpt_fast import ops
from dnagpt_fast.cli import doctor
from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.output_files import whole
from dnagpt_fast.training.figures import GIB

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]
TOY = ModelConfig(19_564, 40, 1, 2, 32, False)


@dataclass(frozen=True)
class Section:
    """module.function() makes the rows on a GPU; function(**toy()) runs the same code on the CPU at toy
    sizes."""

    module: str
    function: str
    seconds: int
    toy: Callable[[], Row]

    def rows(self, rehearse: bool) -> Iterable[Row]:
        function = getattr(importlib.import_module(self.module), self.function)
        return function(**self.toy()) if rehearse else function()


def once(function: Callable[[], object]) -> float:
    """Seconds of one call in a rehearsal; not a figure to report."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def toy_shapes(kind: str, *sizes: int) -> list[Any]:
    return [getattr(importlib.import_module("benchmarks.gpu_attention"), kind)(*sizes)]


HERE: Row = {"device": "cpu", "clock": once}
# the time limits of the sections and of the slowest check add up to less than ten minutes
TEST_SECONDS = 120
SANITIZER_SECONDS = {"memcheck": 90, "racecheck": 90}
CORES = len(os.sched_getaffinity(0))
# the checks run at the same time where each has some cores; they share the GPU, whose memory they hardly fill
CHECKS_AT_ONCE = 4 if CORES >= 8 else 1
SECTIONS = {
    "genome": Section(
        "benchmarks.gpu_genome", "rows", 30, lambda: HERE | {"packed_bytes": 1 << 16, "batches": (4,)}
    ),
    "attention": Section(
        "benchmarks.gpu_attention",
        "rows",
        80,
        lambda: HERE | {"shapes": toy_shapes("Shape", 1, 2, 40, 32), "dtype": torch.float32},
    ),
    "attention_decode": Section(
        "benchmarks.gpu_attention",
        "decode_rows",
        30,
        lambda: HERE | {"shapes": toy_shapes("Cached", 2, 2, 40, 32), "dtype": torch.float32},
    ),
    "combined_loss": Section(
        "benchmarks.bench_combined_loss",
        "gpu_rows",
        50,
        lambda: {"device": "cpu", "rows": 64, "rounds": 1, "dtype": torch.float32},
    ),
    "train_step": Section(
        "benchmarks.gpu_model",
        "train_rows",
        140,
        lambda: HERE | {"configs": ((TOY, 2, ("ours", "plain torch, compiled")),), "packed_bytes": 1 << 14},
    ),
    "profile": Section(
        "benchmarks.gpu_model",
        "profile_rows",
        25,
        lambda: {"device": "cpu", "config": TOY, "samples": 2, "packed_bytes": 1 << 14},
    ),
    "generate": Section(
        "benchmarks.gpu_model",
        "generate_rows",
        20,
        lambda: HERE | {"config": TOY, "samples": 2, "new_tokens": 4},
    ),
    "predicted": Section("benchmarks.gpu_predicted", "rows", 10, lambda: {"device_name": "H100"}),
}


# beside the checks: it saves time later, and its rows are not kept
SECTIONS_BESIDE = {
    "compile": Section(
        "benchmarks.gpu_model",
        "compile_rows",
        90,
        lambda: {
            "device": "cpu",
            "configs": ((TOY, 2, ("ours", "plain torch, compiled")),),
            "packed_bytes": 1 << 14,
        },
    )
}


def section_of(name: str) -> Section:
    return (SECTIONS | SECTIONS_BESIDE)[name]


def circumstances() -> Row:
    """The circumstances: device, versions, commit."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    found: Row = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "commit": commit.stdout.strip() or "unknown: not a clone",
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "driver_cuda": doctor.driver_version(),
        "triton": importlib.import_module("triton").__version__,
        **ops.report(),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["device"] = properties.name
        found["capability"] = f"sm_{properties.major}{properties.minor}"
        found["memory_gib"] = round(properties.total_memory / GIB, 1)
        found["multiprocessors"] = properties.multi_processor_count
    return found


def run_process(command: list[str], seconds: float, **environment: str) -> tuple[str, str]:
    """("" or the failure, the output). The process is ended after `seconds`."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as late:
        printed = late.stdout or b""
        return f"not done after {seconds:.0f} s", printed.decode() if isinstance(printed, bytes) else printed
    return (f"ended with status {done.returncode}" if done.returncode else ""), done.stdout


def shortened(printed: str, least: int = 6000) -> str:
    """The beginning and the end of what a process printed: the first error is the cause, the last lines sum up."""
    if len(printed) <= 2 * least:
        return printed
    return f"{printed[:least]}\n...\n{printed[-least:]}"


def sanitizer() -> str | None:
    """compute-sanitizer of the CUDA toolkit, or None."""
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin")
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=str(toolkit))


def run_sanitizer(tool: str, rehearse: bool) -> Row:
    """Every kernel on small shapes under one tool of compute-sanitizer; in a rehearsal, or if it is missing,
    without."""
    command = [sys.executable, "-m", "benchmarks.gpu_small", *(["--device", "cpu"] if rehearse else [])]
    found = None if rehearse else sanitizer()
    if found:
        command = [found, "--tool", tool, "--error-exitcode", "9", "--print-limit", "5", *command]
    # PyTorch's caching allocator would hide reads past the end of a tensor
    wrong, printed = run_process(command, SANITIZER_SECONDS[tool], PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    row: Row = {"passed": not wrong, "summary": (printed.strip().splitlines() or [""])[-1]}
    if not found:
        row["summary"] += "" if rehearse else " (compute-sanitizer not found: it ran without)"
    return row if not wrong else row | {"wrong": wrong, "output": shortened(printed)}


def run_tests(rehearse: bool) -> Row:
    """The tests of tests/gpu: whether they passed, the last line of their output, and all of it if they
    failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "-p", "no:cacheprovider"]
    # most of the time is compilation, and most tests are in one file
    command += ["-n", str(max(1, min(8, CORES // 2))), "--dist", "worksteal"]
    wrong, printed = run_process(command, TEST_SECONDS, **({"DNAGPT_GPU_REHEARSAL": "1"} if rehearse else {}))
    found: Row = {"passed": not wrong, "summary": (printed.strip().splitlines() or [""])[-1]}
    return found if not wrong else found | {"wrong": wrong, "output": shortened(printed)}


def run_section(name: str, rehearse: bool, seconds: float = float("inf")) -> Row:
    """{"rows", "seconds"} and, if it failed, {"wrong", "output"}; rows made before the failure are kept."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "rows.jsonl")
        command = [sys.executable, "-m", "benchmarks.gpu_report", "--section", name, "--rows", str(target)]
        began = time.monotonic()
        limit = min(section_of(name).seconds, seconds)
        wrong, printed = run_process(command + ["--rehearse"] * rehearse, limit)
        lines = target.read_text().splitlines() if target.is_file() else []
    found: Row = {"rows": [json.loads(line) for line in lines], "seconds": time.monotonic() - began}
    return found if not wrong else found | {"wrong": wrong, "output": shortened(printed)}


def write_rows(name: str, target: Path, rehearse: bool) -> None:
    """The work of a section's process: prints each row as one JSON line as soon as it is made."""
    with open(target, "w") as file:
        for row in section_of(name).rows(rehearse):
            file.write(json.dumps(row) + "\n")
            file.flush()


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|")


def table(rows: list[Row]) -> list[str]:
    """Markdown: one table for the rows of each op, with the columns in the order of their first use."""
    lines: list[str] = []
    for op in dict.fromkeys(row["op"] for row in rows):
        mine = [row for row in rows if row["op"] == op]
        columns = [column for column in dict.fromkeys(key for row in mine for key in row) if column != "op"]
        lines += ["", f"### {op}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(shown(row.get(column, '')) for column in columns)} |" for row in mine]
    return lines


def page(report: Row) -> str:
    """The report as a Markdown page."""
    about = report["circumstances"]
    title = f"# {about.get('device', 'no card')}: kernels checked and timed"
    if report["rehearsal"]:
        title = "# REHEARSAL on the CPU at toy sizes: the code was tried, the figures below mean nothing"
    tests = report["tests"]
    lines = [title, "", "Written by `python -m benchmarks.gpu_report`.", ""]
    lines += [f"- {name}: {shown(value)}" for name, value in about.items()]
    checks = {**report["sanitizers"], "tests/gpu": tests}
    lines += ["", "## Correctness", ""]
    lines += [
        f"- {name}: {'passed' if check['passed'] else 'FAILED'}: {check['summary']}"
        for name, check in checks.items()
    ]
    failures = [(name, check) for name, check in checks.items() if not check["passed"]]
    for name, section in report["sections"].items():
        lines += ["", f"## {name} ({section['seconds']:.0f} s)"]
        if "wrong" in section:
            failures.append((name, section))
            lines += ["", f"**FAILED: {section['wrong']}**; the rows made before that:"]
        lines += table(section["rows"])
    for name, failed in failures:
        lines += [
            "",
            f"## What {name} printed",
            "",
            "```text",
            re.sub("`{3,}", "'''", failed["output"]),
            "```",
        ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--to", type=Path, default=Path("."), help="folder of gpu_report.json and gpu_report.md"
    )
    parser.add_argument(
        "--only", action="append", choices=SECTIONS, help="only this section; may be repeated"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        help="limit of the whole report; later sections get less, or 1 second",
    )
    parser.add_argument("--rehearse", action="store_true", help="on the CPU at toy sizes; no figures")
    parser.add_argument("--section", choices=[*SECTIONS, *SECTIONS_BESIDE], help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.section:
        write_rows(options.section, options.rows, options.rehearse)
        return 0
    if not options.rehearse and not torch.cuda.is_available():
        (device,) = (finding.message for finding in doctor.examine() if finding.what == "device")
        print(
            f"no CUDA device here: {device}. `dnagpt-fast doctor` says more; --rehearse tries the code on the CPU."
        )
        return 2
    needed = ("compiled kernels", "NVIDIA driver", "device")
    broken = [finding for finding in doctor.examine() if finding.what in needed and not finding.ok]
    if broken and not options.rehearse:
        print(*(f"{finding.what}: {finding.message}" for finding in broken), sep="\n")
        print("not started: the problems above would make every section fail")
        return 2
    options.to.mkdir(parents=True, exist_ok=True)
    report: Row = {
        "rehearsal": options.rehearse,
        "circumstances": circumstances(),
        "sanitizers": {},
        "tests": {"passed": False, "summary": "not reached", "output": ""},
        "sections": {},
    }
    began = time.monotonic()
    chosen = options.only or list(SECTIONS)
    with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
        tools = {tool: pool.submit(run_sanitizer, tool, options.rehearse) for tool in SANITIZER_SECONDS}
        tests = pool.submit(run_tests, options.rehearse)
        if CHECKS_AT_ONCE > 1 and "train_step" in chosen:
            pool.submit(run_section, "compile", options.rehearse)
        for tool, check in tools.items():
            report["sanitizers"][tool] = check.result()
            print(f"{tool}: {check.result()['summary']}", flush=True)
            write_report(options.to, report)
        report["tests"] = tests.result()
        print(f"tests/gpu: {report['tests']['summary']}", flush=True)
        write_report(options.to, report)
    print(f"checked after {time.monotonic() - began:.0f} s", flush=True)
    for name in chosen:
        print(f"{name} ...", flush=True)
        left = options.minutes * 60 - (time.monotonic() - began)
        section = report["sections"][name] = run_section(name, options.rehearse, max(1.0, left))
        print(
            f"{len(section['rows'])} rows in {section['seconds']:.0f} s {section.get('wrong', '')}",
            flush=True,
        )
        write_report(options.to, report)
    print(f"{time.monotonic() - began:.0f} s in all; {options.to / stem(report)}.json and .md")
    checks = [*report["sanitizers"].values(), report["tests"]]
    good = all(check["passed"] for check in checks) and not any(
        "wrong" in section for section in report["sections"].values()
    )
    return 0 if good else 1


def stem(report: Row) -> str:
    return "gpu_rehearsal" if report["rehearsal"] else "gpu_report"


def write_report(folder: Path, report: Row) -> None:
    """Writes the report so far, as JSON and as a page."""
    for suffix, text in ((".json", json.dumps(report, indent=1) + "\n"), (".md", page(report))):
        with whole(folder / f"{stem(report)}{suffix}") as file:
            file.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
