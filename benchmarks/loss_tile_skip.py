"""What the tile skip of combined_loss does to a real training run: the demonstration twice, without and with it.

    python -m benchmarks.loss_tile_skip [--steps 1200] [--seeds 0 1] [--arms exact skip]

Same windows, same first weights, the only difference skip_below=2^-24 in the chunked loss, whose tiles are those of the
Triton kernels. Prints one JSON line per run: loss early and late, validation, and the tiles that a backward pass
visits before and after; then the difference of the two beside that between two seeds without the skip.
"""

import argparse
import functools
import json
import sys
import time
from typing import Any
from unittest import mock

import torch

import dnagpt_fast.model
from dnagpt_fast.demo import DEMO_CONFIG
from dnagpt_fast.ops import combined_loss, dispatch
from dnagpt_fast.ops.combined_loss_chunked import _kept_tiles
from dnagpt_fast.ops.combined_loss_tiles import TILE_ROWS, TILE_VOCAB, tile_order
from dnagpt_fast.pretrain import PretrainingRun
from dnagpt_fast.training.loop import StopRequest
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training_config import load_config

SKIP_BELOW = 2.0**-24
ARMS = ("exact", "skip")


@torch.no_grad()
def tiles_visited(job: PretrainingRun, step: int, skip_below: float) -> dict[str, float]:
    """Tiles of 128 rows x 128 entries whose gradient a backward pass with the skip makes, of those there are."""
    batch = job.batch_at(step, 0)
    hidden = job.model.mlm_head[:3](job.model.hidden_states(batch.token_ids)).flatten(0, 1)
    last, targets = job.model.mlm_head[3], batch.targets.flatten()
    rows = targets >= 0
    p = torch.nn.functional.linear(hidden[rows], last.weight, last.bias).softmax(-1)
    order = tile_order(p.shape[1])[0].long()
    kept = _kept_tiles(p, targets[rows][:, None], skip_below, order)[:, order][::TILE_ROWS, ::TILE_VOCAB]
    plain = -(-(4**6) // TILE_VOCAB)
    tops = [
        block.amax().log2() for rows in p[:, order].split(TILE_ROWS) for block in rows.split(TILE_VOCAB, 1)
    ]
    return {
        "visited": int(kept.sum()),
        "visited_of_plain_6mers": int(kept[:, :plain].sum()),
        "tiles": kept.numel(),
        "log2_of_least_tile_top": round(float(torch.stack(tops).min()), 2),
        "tiles_of_plain_6mers": kept[:, :plain].numel(),
    }


def one_run(steps: int, seed: int, skip_below: float | None) -> dict[str, Any]:
    config = load_config(
        DEMO_CONFIG, [f"run.steps={steps}", f"run.seed={seed}", f"schedule.warmup_steps={min(60, steps)}"], []
    )
    job = PretrainingRun(config, Processes.from_environment())
    visited = functools.partial(tiles_visited, job, skip_below=skip_below or SKIP_BELOW)
    row: dict[str, Any] = {
        "steps": steps,
        "seed": seed,
        "skip_below": skip_below,
        "before": visited(0),
    }
    loss = functools.partial(combined_loss, skip_below=skip_below)
    losses: list[float] = []
    began = time.perf_counter()
    with (
        dispatch.using(combined_loss="chunked"),
        mock.patch.object(dnagpt_fast.model, "combined_loss", loss),
    ):
        for report in job.loop.run(0, steps, StopRequest()):
            losses.append(float(report.losses["loss"]))
    row["seconds"] = round(time.perf_counter() - began, 1)
    row["loss_at_50"] = losses[min(49, steps - 1)]
    row["loss_last_100"] = sum(losses[-100:]) / len(losses[-100:])
    row["after"] = visited(steps)
    assert job.validator is not None
    row["validation"] = job.validator(job.model, bf16=False).to_dict()
    row["norm_of_other_rows"] = float(
        job.model.mlm_head[3]
        .weight.detach()[tile_order(len(job.model.mlm_head[3].weight))[0][4**6 :].long()]
        .norm()
    )
    return row


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="to run them side by side")
    parser.add_argument(
        "--skip-below", type=float, default=SKIP_BELOW, help="higher than 2^-24 to see what would be lost"
    )
    options = parser.parse_args()
    ends = {}
    for seed in options.seeds:
        for arm in options.arms:
            row = one_run(options.steps, seed, options.skip_below if arm == "skip" else None)
            print(json.dumps(row), flush=True)
            ends[seed, arm] = row["loss_last_100"]
        if len(options.arms) == len(ARMS):
            change = ends[seed, "skip"] - ends[seed, "exact"]
            print(f"seed {seed}: the skip changes the mean loss of the last 100 steps by {change:+.5f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
