"""What each choice of pre-training is worth: the demonstration with one setting changed, at equal steps, several seeds.

    python -m benchmarks.pretraining_choices --steps 500 --seeds 0 1 -- initial reversed optimizer

Trained on chr22:20.0-20.8 Mb of the packaged megabase; choices are made by 20.8-20.9 Mb (first figure), 20.9-21.0 Mb
(second figure) is only looked at. Processor seconds, because they hold beside other work too.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from dnagpt_fast.evaluation.markov import MarkovChain
from dnagpt_fast.genome.sampler import Intervals
from dnagpt_fast.pretrain.demo import DEMO_CONFIG
from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.mix import parse_range
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.pretrain.validation import ValidationReport, Validator, held_out_windows
from dnagpt_fast.training.loop import StopRequest
from dnagpt_fast.training.processes import Processes

CONTIG = "22:20000001-21000000"
CHOOSE, REPORT = f"{CONTIG}:800000-900000", f"{CONTIG}:900000-1000000"
CHOICES: dict[str, dict[str, list[str]]] = {
    "initial": {
        "official": ["model.initial=official"],
        "composed": ["model.initial=composed"],
    },
    "reversed": {
        "0.25, next tokens count": ["data.reversed_share=0.25", "loss.reversed_next_token=true"],
        "0.25": ["data.reversed_share=0.25"],
        "0.125": ["data.reversed_share=0.125"],
        "0.0625": ["data.reversed_share=0.0625"],
    },
    "optimizer": {
        "AdamW": ["optimizer.kind=adamw"],
        "Muon": ["optimizer.kind=muon"],
    },
    "schedule": {
        "cosine": [],
        "warm-up, stable, decay": ["schedule.kind=wsd", "schedule.decay_steps=150"],
    },
    "z_loss": {"0": [], "1e-4": ["loss.z_loss=1e-4"]},
}


def reports(job: PretrainingRun) -> list[ValidationReport]:
    """On the range for choosing and on the one that is reported."""
    found = []
    genome = job.mix.genomes[0]
    for text in (CHOOSE, REPORT):
        place = np.array([parse_range(text, genome)], dtype=np.int64)
        ranges = Intervals(place[:, 0], place[:, 1], place[:, 2])
        windows = held_out_windows([genome.arrays], [ranges], job.maker.length_bp, job.sampler.max_n_bp, 1000)
        validator = Validator(job.maker, windows, MarkovChain(0).fit([np.arange(4)]), 32)
        found.append(validator(lambda batch: job.losses.answers(batch, job.maker.template), job.device))
    return found


def trained(overrides: list[str], steps: int, seed: int) -> tuple[float, list[ValidationReport]]:
    """Processor seconds of the steps, and the reports after them."""
    settings = [
        f'data.genomes=[{{path="{DEMO_CONFIG.parent}/hg19_chr22_20-21Mb.2bit", species="human", '
        f'held_out=["{CHOOSE}", "{REPORT}"]}}]',
        f"run.steps={steps}",
        f"run.seed={seed}",
        f"data.seed={seed}",
    ]
    job = PretrainingRun(load_config(DEMO_CONFIG, [*settings, *overrides]), Processes())
    began = time.process_time()
    for _ in job.loop.run(0, steps, StopRequest()):
        pass
    return time.process_time() - began, reports(job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="*", default=[], help="settings of every run")
    parser.add_argument("choices", nargs="*", help=f"of {', '.join(CHOICES)}; none: the settings as they are")
    given = parser.parse_args()
    rows = {(name, label): more for name in given.choices for label, more in CHOICES[name].items()}
    for (name, label), more in (rows or {("demonstration", ", ".join(given.set)): []}).items():
        runs = [trained([*given.set, *more], given.steps, seed) for seed in given.seeds]
        for place, what in enumerate(("20.8-20.9", "20.9-21.0")):
            values = [found[place].nats_per_bp for _, found in runs]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            gc = [found[place].gc_r2 or 0.0 for _, found in runs]
            order = [found[place].order_accuracy for _, found in runs]
            print(
                f"| {name} | {label} | {what} | {statistics.mean(values):.4f}{spread} | {statistics.mean(gc):.3f} | "
                f"{statistics.mean(order):.3f} | {statistics.mean(cpu for cpu, _ in runs):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
