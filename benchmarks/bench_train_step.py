"""Time, tokens/s and peak memory of one optimizer step of the 0.1B model, 4 x 512 tokens, fp32, compared with the
official model.

Ours runs with the softmax over all tokens and over the occurring ones; the official model runs with plain
cross-entropy and AdamW.

    DNAGPT_OFFICIAL=<clone of TencentAILabHealthcare/DNAGPT> python benchmarks/bench_train_step.py [--rounds 3]
        --samples 1 --tokens 64     another size, to test the script

Each side is a separate process, since peak memory belongs to a process. Their steps alternate, so that a
slower machine slows all of them. All start from the same weights, in which the rows of tokens that never
occur are equal, and use the same batch of plain 6-mers with the same learning rate and no decay. The losses
of every step are compared before a figure is printed. Memory is the peak above the memory of the process
after importing torch. A step uses all cores, so nothing else should run.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VOCAB, LR = 19_564, 1e-4
SIDES = ("official", "ours", "occurring")
GIB_IN_KIB = 2**20


def status_gib(key: str) -> float:
    """VmRSS (now) or VmHWM (at most), of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / GIB_IN_KIB
    raise RuntimeError(f"/proc/self/status has no {key}")


def occurring():
    from dnagpt_fast.ops.combined_loss.occurring import occurring_tokens
    from dnagpt_fast.vocab import Vocabulary

    return occurring_tokens(Vocabulary(6), [])


def official_step(ids, targets):
    import torch
    import torch.nn.functional as F

    sys.path.insert(0, os.environ["DNAGPT_OFFICIAL"])
    from dna_gpt.model import DNAGPT

    from dnagpt_fast.ops.combined_loss.occurring import equalize_rest

    model = DNAGPT.from_name("dna_gpt0.1b_m", VOCAB)
    equalize_rest(model.mlm_head[3].weight, None, occurring())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)

    def step() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(ids).view(-1, VOCAB), targets.view(-1))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_step(ids, targets, tokens=None):
    """tokens: the occurring tokens, for a softmax over them; None: over all."""
    from torch import nn

    from dnagpt_fast import DNAGPT
    from dnagpt_fast.ops import combined_loss
    from dnagpt_fast.ops.combined_loss.occurring import equalize_rest
    from dnagpt_fast.training.loop import Loop, StopRequest
    from dnagpt_fast.training.optimizer import build_optimizer

    model = DNAGPT.from_name("dna_gpt0.1b_m", VOCAB)
    equalize_rest(model.last_projection.weight, None, occurring())

    class NextToken(nn.Module):
        """Next-token loss, the only objective that the official side has too."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch):
            rows = self.model.head_rows(self.model.hidden_states(batch)).flatten(0, 1)
            weight = self.model.last_projection.weight
            return {"loss": combined_loss(rows, weight, targets.flatten(), occurring=tokens).total}

    loop = Loop(
        losses_of=NextToken(),
        optimizer=build_optimizer(model, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0),
        batch_at=lambda step, part: ids,
        lr_at=lambda step: LR,
        describe=lambda batch: [],
        clip_norm=0.0,
    )
    return lambda: loop.one_step(0, StopRequest()).losses["loss"]


def work(side: str, samples: int, tokens: int) -> None:
    """Does one step for each line on stdin and answers with one line of JSON."""
    import torch

    answers, sys.stdout = sys.stdout, sys.stderr  # the official code prints
    before = status_gib("VmRSS")
    torch.manual_seed(0)
    plain = occurring()
    ids, targets = (plain.tokens[torch.randint(0, 4**6, (samples, tokens))] for _ in range(2))
    if side == "official":
        step = official_step(ids, targets)
    else:
        step = our_step(ids, targets, plain if side == "occurring" else None)
    for _ in sys.stdin:
        began = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - began
        peak = status_gib("VmHWM") - before
        answer = {"loss": loss, "seconds": seconds, "peak_gib": peak}
        answer["instruction_set"] = torch.backends.cpu.get_cpu_capability()
        answer["threads"] = torch.get_num_threads()
        print(json.dumps(answer), file=answers, flush=True)


def end(worker: Any) -> None:
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.close()
    worker.wait()


def measure(rounds: int, samples: int, tokens: int) -> dict[str, list[dict[str, Any]]]:
    """One warm-up step and `rounds` steps of each side, in turn. Raises RuntimeError with the output of a
    failed process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, "--samples", str(samples), "--tokens", str(tokens), "--worker"]
    workers: dict[str, Any] = {}
    steps: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with contextlib.ExitStack() as stack:
        printed = {side: stack.enter_context(tempfile.TemporaryFile("w+")) for side in SIDES}
        for side in SIDES:
            workers[side] = subprocess.Popen(
                [*command, side],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed[side],
                text=True,
                env=environment,
            )
            stack.callback(end, workers[side])
        for _ in range(1 + rounds):
            for side, worker in workers.items():
                with contextlib.suppress(BrokenPipeError):  # it has ended: its words follow
                    worker.stdin.write("step\n")
                    worker.stdin.flush()
                answer = worker.stdout.readline()
                if not answer:
                    status = worker.wait()
                    printed[side].seek(0)
                    raise RuntimeError(
                        f"the {side} process ended with {status}:\n{printed[side].read()[-2000:]}"
                    )
                steps[side].append(json.loads(answer))
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="measured steps of each side")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512, help="of each sample, at most 512")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.samples, arguments.tokens)
        return
    if not os.environ.get("DNAGPT_OFFICIAL"):
        sys.exit("DNAGPT_OFFICIAL must name a clone of the official repository")
    steps = measure(arguments.rounds, arguments.samples, arguments.tokens)
    for side in SIDES[1:]:
        for ours, theirs in zip(steps[side], steps["official"], strict=True):
            if abs(ours["loss"] - theirs["loss"]) > 1e-4 * theirs["loss"]:
                sys.exit(f"the losses differ: {ours['loss']} ({side}) and {theirs['loss']} (official)")
    for side in SIDES:
        print(json.dumps(row_of(side, steps, arguments.samples, arguments.tokens)))


def row_of(side: str, steps: dict[str, list[dict[str, Any]]], samples: int, tokens: int) -> dict[str, Any]:
    """The figures of one side; the time ratio is the median over the rounds, after the warming-up step."""
    seconds = {name: [step["seconds"] for step in of_side[1:]] for name, of_side in steps.items()}
    peak = {name: of_side[-1]["peak_gib"] for name, of_side in steps.items()}
    ratios = [ours / theirs for ours, theirs in zip(seconds[side], seconds["official"], strict=True)]
    median = statistics.median(seconds[side])
    return {
        "op": "train_step",
        "side": side,
        "samples": samples,
        "tokens": tokens,
        "instruction_set": steps[side][0]["instruction_set"],
        "threads": steps[side][0]["threads"],
        "seconds": round(median, 3),
        "tokens_per_s": round(samples * tokens / median, 1),
        "peak_gib": round(peak[side], 3),
        "time_ratio": round(statistics.median(ratios), 3),
        "memory_ratio": round(peak[side] / peak["official"], 3),
        "time_ratio_each_round": [round(ratio, 3) for ratio in ratios],
    }


if __name__ == "__main__":
    main()
