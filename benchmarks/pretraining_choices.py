"""What each choice of pre-training is worth: the demonstration with one setting changed, at equal steps, several seeds.

    python -m benchmarks.pretraining_choices --steps 500 --seeds 0 1 -- initial reversed optimizer

Trained on chr22:20.0-20.8 Mb of the packaged megabase; choices are made by 20.8-20.9 Mb (first figure), 20.9-21.0 Mb
(second figure) is only looked at. Processor seconds, because they hold beside other work too.
"""

import argparse
import itertools
import statistics
import time
from unittest import mock

import numpy as np
import torch

from dnagpt_fast.evaluation.chains import Chains
from dnagpt_fast.evaluation.markov import MarkovChain
from dnagpt_fast.genome.regions import range_in
from dnagpt_fast.genome.sampler import Intervals
from dnagpt_fast.model import initial_values
from dnagpt_fast.model.initial_values import compose_input_rows
from dnagpt_fast.pretrain.demo import DEMO_CONFIG
from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.pretrain.validation import ValidationReport, Validator, held_out_windows
from dnagpt_fast.training.loop import StopRequest
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.vocab import Vocabulary

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
        "AdamW": ["optimizer.kind=adamw"],
        "Muon": [],
        "Muon, lr 2e-3": ["optimizer.lr=2e-3"],
        "Muon, lr 8e-3": ["optimizer.lr=8e-3"],
    },
    "schedule": {
        "cosine": [],
        "warm-up, stable, decay over the last fifth": ["schedule.kind=wsd", "schedule.decay_steps=STEPS/5"],
    },
    "z_loss": {"0": [], "1e-4": ["loss.z_loss=1e-4"]},
    "base_level": {
        "cross-entropy": [],
        "a third by bases": ["loss.base_level=0.333"],
        "bases alone": ["loss.base_level=1.0"],
        "bases alone in the second half": ["loss.base_level=1.0", "loss.base_level_from_step=STEPS/2"],
        "a third by bases in the second half": ["loss.base_level=0.333", "loss.base_level_from_step=STEPS/2"],
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


def other_initial_values(label: str, job: PretrainingRun) -> None:
    """The forms that were tried beside model.initial = "composed", written over it. Standard deviations stay."""
    model, vocabulary = job.model, job.maker.vocabulary
    wte, head = model.transformer.wte.weight.data, model.last_projection.weight.data
    if "no vector" in label:
        with mock.patch.object(initial_values, "OWN_SHARE", 0.0):
            compose_input_rows(wte, vocabulary)
    if "1 to 6" in label:
        with mock.patch.object(initial_values, "LONGEST_PART", 6):
            compose_input_rows(wte, vocabulary)
    if "head rows" in label:
        rows = torch.zeros_like(head)
        compose_input_rows(rows, vocabulary)
        head[PLAIN] = rows[PLAIN] * head.std()
    if "(a)" in label:
        wte[PLAIN] = by_ends(wte.shape[1], suffix=True)
    if "prefixes" in label:
        head[PLAIN] = by_ends(wte.shape[1], suffix=False) * head.std()


def by_ends(width: int, *, suffix: bool) -> torch.Tensor:
    """(4096, width), rows in the order of PLAIN, standard deviation 1: a vector for each suffix (prefix) of a 6-mer, a
    shorter one weighted more, by 0.8 for each base."""
    k = Vocabulary().k
    total, place = torch.zeros(4**k, width), torch.arange(4**k)
    for length in range(1, k + 1):
        part = torch.randn(4**length, width)
        total += 0.8**length * part[place % 4**length if suffix else place // 4 ** (k - length)]
    return total / total.std()


def reports(job: PretrainingRun) -> list[ValidationReport]:
    """On the range for choosing and on the one that is reported."""
    found = []
    genome = job.mix.genomes[0]
    for text in (CHOOSE, REPORT):
        place = np.array([range_in(text, genome.contigs, genome.lengths, "held out")], dtype=np.int64)
        ranges = Intervals(place[:, 0], place[:, 1], place[:, 2])
        windows = held_out_windows([genome.arrays], [ranges], job.maker.length_bp, job.sampler.max_n_bp, 1000)
        validator = Validator(job.maker, windows, Chains.of(MarkovChain(0), []), 32)
        found.append(validator(lambda batch: job.losses.answers(batch, job.maker.template), job.device))
    return found


def trained(label: str, overrides: list[str], steps: int, seed: int) -> tuple[float, list[ValidationReport]]:
    """Processor seconds of the steps, and the reports after them."""
    for share in (2, 5):
        overrides = [text.replace(f"STEPS/{share}", str(steps // share)) for text in overrides]
    settings = [
        f'data.genomes=[{{path="{DEMO_CONFIG.parent}/hg19_chr22_20-21Mb.2bit", species="human", '
        f'held_out=["{CHOOSE}", "{REPORT}"]}}]',
        f"run.steps={steps}",
        f"schedule.warmup_steps={min(100, steps // 10)}",
        f"run.seed={seed}",
        f"data.seed={seed}",
    ]
    job = PretrainingRun(load_config(DEMO_CONFIG, [*settings, *overrides]), Processes())
    other_initial_values(label, job)
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
        runs = [trained(label, [*given.set, *more], given.steps, seed) for seed in given.seeds]
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
