"""The effect of each choice of pre-training: the demonstration with one setting changed, at equal steps,
several seeds.

    python -m benchmarks.pretraining_choices --steps 500 --seeds 0 1 -- initial reversed optimizer

Trained on chr22:20.0-20.8 Mb of the packaged megabase. Choices are made on 20.8-20.9 Mb; 20.9-21.0 Mb is only
reported. Each finished run is written to --results with all its settings and is not repeated. The first seeds
of all choices run first. The table at the end shows the runs of the file. Seconds are processor time, which
other work hardly changes.
"""

import argparse
import itertools
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from dnagpt_fast.evaluation.chains import Chains
from dnagpt_fast.evaluation.markov import MarkovChain
from dnagpt_fast.genome.regions import range_in
from dnagpt_fast.genome.sampler import Intervals
from dnagpt_fast.model import initial_values
from dnagpt_fast.model.initial_values import compose_input_rows
from dnagpt_fast.model.layers import LayerNorm
from dnagpt_fast.ops.residual_norm.op import residual_norm
from dnagpt_fast.pretrain.demo import DEMO_CONFIG
from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.settings import PretrainConfig, load_config
from dnagpt_fast.pretrain.validation import ValidationReport, Validator, held_out_windows
from dnagpt_fast.training.loop import StopRequest
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.vocab import Vocabulary

RESULTS = Path(__file__).parent / "results" / "pretraining_choices.jsonl"
CONTIG = "22:20000001-21000000"
CHOOSE, REPORT = f"{CONTIG}:800000-900000", f"{CONTIG}:900000-1000000"
CHOICES: dict[str, dict[str, list[str]]] = {
    "initial": {
        "official": ["model.initial=official"],
        "composed (b): input rows": [],
        "composed (b): input and head rows": [],
        "composed (b): input rows, no vector of their own": [],
        "composed (b): input rows, parts of 1 to 6 bases": [],
        "composed (a): input rows by suffixes": [],
        "composed (a): input by suffixes, head by prefixes": [],
    },
    "vocabulary": {"occurring": [], "full": ["loss.vocabulary=full"]},
    "reversed": {
        "0.25, next tokens count": ["data.reversed_share=0.25", "loss.reversed_next_token=true"],
        "0.25": ["data.reversed_share=0.25"],
        "0.125": ["data.reversed_share=0.125"],
        "0.0625": ["data.reversed_share=0.0625"],
    },
    "optimizer": {
        "AdamW, lr 4e-3": ["optimizer.kind=adamw", "optimizer.lr=4e-3"],
        "AdamW, lr 8e-3": ["optimizer.kind=adamw", "optimizer.lr=8e-3"],
        "Muon, lr 2e-3": ["optimizer.lr=2e-3"],
        "Muon, lr 4e-3": ["optimizer.lr=4e-3"],
        "Muon, lr 8e-3": ["optimizer.lr=8e-3"],
        "Muon, lr 16e-3": ["optimizer.lr=16e-3"],
    },
    "schedule": {
        "cosine": [],
        "warm-up, stable, decay over the last fifth": ["schedule.kind=wsd", "schedule.decay_steps=STEPS*0.2"],
    },
    "precision": {
        "fp32": ["run.precision=fp32"],
        "bf16, stream in fp32": ["run.precision=bf16"],
        "bf16, stream in bf16": ["run.precision=bf16", "run.residual=bf16"],
        "fp32, only the stream in bf16": ["run.precision=fp32"],
    },
    "z_loss": {"0": [], "1e-4": ["loss.z_loss=1e-4"]},
    "base_level": {
        "cross-entropy": [],
        "a third by bases": ["loss.base_level=0.333"],
        "bases alone": ["loss.base_level=1.0"],
        "bases alone in the second half": ["loss.base_level=1.0", "loss.base_level_from_step=STEPS*0.5"],
        "a third by bases in the second half": ["loss.base_level=0.333", "loss.base_level_from_step=STEPS*0.5"],
    },
    "demonstration": {
        "as packaged": [],
        "lr 4e-3": ["optimizer.lr=4e-3"],
        "composed (b): input and head rows": [],
    },
    "shape": {
        "64 wide, 2 layers, 64 tokens": [],
        "64 wide, 2 layers, 128 tokens": ["model.max_len=128", "run.batch_size=8"],
        "96 wide, 3 layers, 128 tokens": [
            "model.max_len=128", "run.batch_size=8", "model.embedding_dim=96", "model.num_layers=3",
            "model.num_heads=3",
        ],
    },
}  # fmt: skip
PLAIN = torch.tensor(
    [Vocabulary().kmer_id("".join(bases)) for bases in itertools.product("AGCT", repeat=Vocabulary().k)]
)


def head_too(job: PretrainingRun) -> None:
    rows = torch.zeros_like(head_of(job))
    compose_input_rows(rows, job.maker.vocabulary)
    head_of(job)[PLAIN] = rows[PLAIN] * head_of(job).std()


def no_own_vector(job: PretrainingRun) -> None:
    with mock.patch.object(initial_values, "OWN_SHARE", 0.0):
        compose_input_rows(input_of(job), job.maker.vocabulary)


def parts_of_all_lengths(job: PretrainingRun) -> None:
    with mock.patch.object(initial_values, "LONGEST_PART", 6):
        compose_input_rows(input_of(job), job.maker.vocabulary)


def stream_in_bf16(job: PretrainingRun) -> None:
    """The stream and its gradient are rounded to bf16 at each addition; everything else stays in fp32. On a processor
    without bf16 products autocast takes many times as long."""

    def added(
        norm: LayerNorm, x: torch.Tensor, branch: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.bfloat16()
        if branch is None:
            return x, norm(x.float())
        return residual_norm(x, branch, norm.weight, norm.bias, eps=norm.eps, dtype=torch.float32)

    for module in job.model.transformer.modules():
        if isinstance(module, LayerNorm):
            module.added = partial(added, module)  # type: ignore[method-assign]


def by_suffixes(job: PretrainingRun) -> None:
    input_of(job)[PLAIN] = by_ends(input_of(job).shape[1], suffix=True)


def by_suffixes_and_prefixes(job: PretrainingRun) -> None:
    by_suffixes(job)
    head_of(job)[PLAIN] = by_ends(input_of(job).shape[1], suffix=False) * head_of(job).std()


# Other initial values, which replace those of model.initial = "composed"; the standard deviations are the
# same.
FORMS: dict[str, Callable[[PretrainingRun], None]] = {
    "fp32, only the stream in bf16": stream_in_bf16,
    "composed (b): input and head rows": head_too,
    "composed (b): input rows, no vector of their own": no_own_vector,
    "composed (b): input rows, parts of 1 to 6 bases": parts_of_all_lengths,
    "composed (a): input rows by suffixes": by_suffixes,
    "composed (a): input by suffixes, head by prefixes": by_suffixes_and_prefixes,
}


def input_of(job: PretrainingRun) -> torch.Tensor:
    return job.model.transformer.wte.weight.data


def head_of(job: PretrainingRun) -> torch.Tensor:
    return job.model.last_projection.weight.data


def by_ends(width: int, *, suffix: bool) -> torch.Tensor:
    """(4096, width), rows in the order of PLAIN, standard deviation 1: the sum of one vector for each suffix
    (prefix) of a 6-mer; the weight decreases by 0.8 with each base."""
    k = Vocabulary().k
    total, place = torch.zeros(4**k, width), torch.arange(4**k)
    for length in range(1, k + 1):
        part = torch.randn(4**length, width)
        total += 0.8**length * part[place % 4**length if suffix else place // 4 ** (k - length)]
    return total / total.std()


def reports(job: PretrainingRun) -> Iterator[ValidationReport]:
    """The reports on the range for choosing and on the range that is only reported."""
    genome = job.mix.genomes[0]
    for text in (CHOOSE, REPORT):
        place = np.array([range_in(text, genome.contigs, genome.lengths, "held out")], dtype=np.int64)
        ranges = Intervals(place[:, 0], place[:, 1], place[:, 2])
        windows = held_out_windows([genome.arrays], [ranges], job.maker.length_bp, job.sampler.max_n_bp, 1000)
        validator = Validator(job.maker, windows, Chains.of(MarkovChain(0), []), 32)
        yield validator(lambda batch: job.losses.answers(batch, job.maker.template), job.device)


def config_of(overrides: list[str], steps: int, seed: int) -> PretrainConfig:
    """The demonstration with both ranges held out; STEPS*0.5 in an override is half of the steps."""
    settled = [
        re.sub(r"STEPS\*([0-9.]+)", lambda found: str(round(steps * float(found[1]))), text)
        for text in overrides
    ]
    settings = [
        f'data.genomes=[{{path="{DEMO_CONFIG.parent}/hg19_chr22_20-21Mb.2bit", species="human", '
        f'held_out=["{CHOOSE}", "{REPORT}"]}}]',
        f"run.steps={steps}",
        f"schedule.warmup_steps={min(100, steps // 10)}",
        f"run.seed={seed}",
        f"data.seed={seed}",
    ]
    return load_config(DEMO_CONFIG, [*settings, *settled])


def changed_settings(now: Any, default: Any, name: str = "") -> dict[str, Any]:
    """`section.key` -> value of the settings that differ from the defaults and affect the result."""
    if not is_dataclass(now):
        return {} if now == default else {name: now}
    found: dict[str, Any] = {}
    for field in fields(now):
        if field.name not in ("genomes", "checkpoint", "validation"):
            inner = f"{name}.{field.name}".lstrip(".")
            found |= changed_settings(getattr(now, field.name), getattr(default, field.name), inner)
    return found


def identity(form: str, config: PretrainConfig) -> dict[str, Any]:
    """The entries by which a run is found in the file of results."""
    known = {"form": form, "settings": changed_settings(config, PretrainConfig())}
    return json.loads(json.dumps(known))


def trained(form: str, config: PretrainConfig) -> dict[str, Any]:
    """Trains to the end; returns the line of the run in the file of results."""
    job = PretrainingRun(config, Processes())
    if form:
        FORMS[form](job)
    began = time.process_time()
    for _ in job.loop.run(0, job.steps, StopRequest()):
        pass
    seconds = time.process_time() - began
    choose, report = reports(job)
    return {
        **identity(form, config),
        "choose_nats_per_bp": choose.nats_per_bp,
        "report_nats_per_bp": report.nats_per_bp,
        "choose_gc_r2": choose.gc_r2,
        "report_gc_r2": report.gc_r2,
        "choose_order": choose.order_accuracy,
        "report_order": report.order_accuracy,
        "cpu_seconds": seconds,
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
    }


def read_results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def found_in(results: list[dict[str, Any]], form: str, config: PretrainConfig) -> dict[str, Any] | None:
    wanted = identity(form, config)
    same = [row for row in results if {"form": row["form"], "settings": row["settings"]} == wanted]
    return same[0] if same else None


def table_row(name: str, label: str, runs: list[dict[str, Any]]) -> str:
    def mean(key: str, digits: int) -> str:
        values = [run[key] for run in runs]
        spread = f" ± {statistics.stdev(values):.{digits}f}" if digits == 4 and len(values) > 1 else ""
        return f"{statistics.mean(values):.{digits}f}{spread}"

    return (
        f"| {name} | {label} | {mean('choose_nats_per_bp', 4)} | {mean('report_nats_per_bp', 4)} | "
        f"{mean('report_gc_r2', 3)}, {mean('report_order', 3)} | {mean('cpu_seconds', 0)} | {len(runs)} |"
    )


def runs_of(
    given: argparse.Namespace, rows: dict[tuple[str, str], list[str]]
) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Every run of these rows, seed by seed: from the file of results, or (without --table) trained and written."""
    for seed, (row, more) in itertools.product(given.seeds, rows.items()):
        form, config = row[1] if row[1] in FORMS else "", config_of([*given.set, *more], given.steps, seed)
        run = found_in(read_results(given.results), form, config)
        if run is None and not given.table:
            run = trained(form, config)
            with given.results.open("a") as file:
                file.write(json.dumps(run) + "\n")
            print(f"seed {seed}", table_row(*row, [run]), file=sys.stderr, flush=True)
        if run is not None:
            yield row, run


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="*", default=[], help="settings of every run")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="train nothing: the table of what is there")
    parser.add_argument("choices", nargs="*", help=f"of {', '.join(CHOICES)}; none: the settings as they are")
    given = parser.parse_args(arguments)
    if unknown := set(given.choices) - set(CHOICES):
        parser.error(f"no such choice: {', '.join(sorted(unknown))}; wanted some of {', '.join(CHOICES)}")
    rows = {(name, label): more for name in given.choices for label, more in CHOICES[name].items()}
    rows = rows or {("demonstration", ", ".join(given.set)): []}
    done: dict[tuple[str, str], list[dict[str, Any]]] = {row: [] for row in rows}
    for row, run in runs_of(given, rows):
        done[row].append(run)
    print("| | | 20.8-20.9 Mb | 20.9-21.0 Mb | GC r2, order | s | seeds |\n|---|---|---|---|---|---|---|")
    for row, runs in done.items():
        if runs:
            print(table_row(*row, runs))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
