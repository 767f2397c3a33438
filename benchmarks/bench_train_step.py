"""One optimizer step of the 0.1B model, 4 x 512 tokens, fp32: this package beside the official model with plain
cross-entropy and AdamW. Time and peak memory.

    DNAGPT_OFFICIAL=<clone of TencentAILabHealthcare/DNAGPT> python benchmarks/bench_train_step.py [--rounds 3]

Each side is a process of its own, since peak memory is a process's; their steps alternate, so that a machine that slows
down slows both. Both start from the same weights and see the same batch, with the same learning rate and no decay: the
losses of every step are compared before a figure is printed. Memory is the peak above what the process held once torch
was imported. A step uses all cores, so nothing else should run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VOCAB, SAMPLES, TOKENS, LR = 19_564, 4, 512, 1e-4
SIDES = ("official", "ours")
GIB_IN_KIB = 2**20


def status_gib(key: str) -> float:
    """VmRSS (now) or VmHWM (at most), of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / GIB_IN_KIB
    raise RuntimeError(f"/proc/self/status has no {key}")


def official_step(ids, targets):
    import torch
    import torch.nn.functional as F

    sys.path.insert(0, os.environ["DNAGPT_OFFICIAL"])
    from dna_gpt.model import DNAGPT

    model = DNAGPT.from_name("dna_gpt0.1b_m", VOCAB)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)

    def step() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(ids).view(-1, VOCAB), targets.view(-1))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_step(ids, targets):
    from torch import nn

    from dnagpt_fast.model.dnagpt import DNAGPT
    from dnagpt_fast.ops.combined_loss.op import combined_loss
    from dnagpt_fast.training.loop import Loop, StopRequest
    from dnagpt_fast.training.optimizer import build_optimizer

    model = DNAGPT.from_name("dna_gpt0.1b_m", VOCAB)

    class NextToken(nn.Module):
        """The one objective that the official side has too."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch):
            rows = self.model.head_rows(self.model.hidden_states(batch)).flatten(0, 1)
            return {"loss": combined_loss(rows, self.model.last_projection.weight, targets.flatten()).total}

    loop = Loop(
        losses_of=NextToken(),
        optimizer=build_optimizer(model, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0),
        batch_at=lambda step, part: ids,
        lr_at=lambda step: LR,
        describe=lambda batch: [],
        clip_norm=0.0,
    )
    return lambda: loop.one_step(0, StopRequest()).losses["loss"]


def work(side: str) -> None:
    """Makes one step for each line on stdin and answers with one line of JSON."""
    import torch

    answers, sys.stdout = sys.stdout, sys.stderr  # the official code prints
    before = status_gib("VmRSS")
    torch.manual_seed(0)
    ids, targets = (torch.randint(34, VOCAB, (SAMPLES, TOKENS)) for _ in range(2))
    step = {"official": official_step, "ours": our_step}[side](ids, targets)
    for _ in sys.stdin:
        began = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - began
        peak = status_gib("VmHWM") - before
        print(json.dumps({"loss": loss, "seconds": seconds, "peak_gib": peak}), file=answers, flush=True)


def measure(rounds: int) -> dict[str, list[dict[str, float]]]:
    """A warming-up step and `rounds` steps of each side, in turns."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, "--worker"]
    workers: dict[str, Any] = {}
    steps: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    try:
        for side in SIDES:
            workers[side] = subprocess.Popen(
                [*command, side],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
            )
        for _ in range(1 + rounds):
            for side, worker in workers.items():
                worker.stdin.write("step\n")
                worker.stdin.flush()
                answer = worker.stdout.readline()
                if not answer:
                    raise RuntimeError(f"the {side} process ended with {worker.wait()}")
                steps[side].append(json.loads(answer))
    finally:
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="measured steps of each side")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return
    if not os.environ.get("DNAGPT_OFFICIAL"):
        sys.exit("DNAGPT_OFFICIAL must name a clone of the official repository")
    steps = measure(arguments.rounds)
    for ours, theirs in zip(steps["ours"], steps["official"], strict=True):
        if abs(ours["loss"] - theirs["loss"]) > 1e-4 * theirs["loss"]:
            sys.exit(f"the losses differ: {ours['loss']} and {theirs['loss']}")
    seconds = {side: [step["seconds"] for step in steps[side][1:]] for side in SIDES}
    peak = {side: steps[side][-1]["peak_gib"] for side in SIDES}
    for side in SIDES:
        shown = " ".join(f"{value:.2f}" for value in seconds[side])
        print(
            f"{side:9} {statistics.median(seconds[side]):6.2f} s a step ({shown}), peak {peak[side]:.2f} GiB"
        )
    ratios = sorted(a / b for a, b in zip(seconds["ours"], seconds["official"], strict=True))
    row = {
        "op": "train_step",
        "time_ratio": round(statistics.median(ratios), 3),
        "memory_ratio": round(peak["ours"] / peak["official"], 3),
        "seconds": seconds,
        "peak_gib": peak,
    }
    print(f"time ratio {row['time_ratio']} (each round {', '.join(f'{ratio:.3f}' for ratio in ratios)})")
    print(f"memory ratio {row['memory_ratio']}")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
