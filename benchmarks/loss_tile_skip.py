"""The effect of combined_loss's tile skip on a real training run: the demonstration, with and without it.

    python -m benchmarks.loss_tile_skip --steps 1500 --fork-at 500 --seeds 0 1
    python -m benchmarks.loss_tile_skip --steps 500 --rare-log2 -26 --seeds 0 1

The runs ("arms") of a seed share the first steps, without the skip, up to --fork-at. Then each differs in one
thing: skip      skip_below = 2^-24 in the chunked loss, with chunks that equal the row tiles of the Triton
kernels rounding  no skip, other chunks: the same sums in another order, which shows the effect of rounding
alone --rare-log2 starts from the state of a model after long training: the bias of every entry except the
4,096 plain 6-mers and the template's own tokens is set so that such an entry has about this probability at
the first step.

One JSON line per run: the tiles that a backward pass visits at several steps, the final loss, validation; and
for the arms other than "exact", the final difference of the projection's rows from the exact arm's.
"""

import argparse
import copy
import functools
import json
import math
import sys
import time
from typing import Any
from unittest import mock

import torch

import dnagpt_fast.model.network
from dnagpt_fast.ops import combined_loss, dispatch
from dnagpt_fast.ops.combined_loss import chunked as combined_loss_chunked
from dnagpt_fast.ops.combined_loss.tiles import TILE_ROWS, TILE_VOCAB, tile_order
from dnagpt_fast.pretrain.demo import DEMO_CONFIG
from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.pretrain.validation import answers_of
from dnagpt_fast.training.loop import StopRequest
from dnagpt_fast.training.processes import Processes

SKIP_BELOW = 2.0**-24
PLAIN = 4**6
ARMS = ("exact", "skip", "rounding")


@torch.no_grad()
def tiles_visited(job: PretrainingRun, step: int) -> dict[str, float]:
    """Tiles of 128 rows x 128 entries whose gradient a backward pass with the skip computes, and the number
    of tiles."""
    batch = job.batch_at(step, 0)
    hidden = job.model.head_rows(job.model.hidden_states(batch.token_ids)).flatten(0, 1)
    last, targets = job.model.last_projection, batch.targets.flatten()
    counted = targets >= 0
    p = torch.nn.functional.linear(hidden[counted], last.weight, last.bias).softmax(-1)
    kept = combined_loss_chunked.kept_tiles(
        p, torch.full_like(p[:, :1], SKIP_BELOW), targets[counted][:, None]
    )
    in_order = p[:, tile_order(p.shape[1])[0].long()]
    tops = [tile.amax() for rows in in_order.split(TILE_ROWS) for tile in rows.split(TILE_VOCAB, 1)]
    return {
        "step": step,
        "visited": int(kept.sum()),
        "visited_of_plain_6mers": int(kept[:, : PLAIN // TILE_VOCAB].sum()),
        "tiles": kept.numel(),
        "log2_of_least_tile_top": round(float(torch.stack(tops).min().log2()), 2),
        "rare_entries_share": float(in_order[:, PLAIN:].sum(1).mean()),
    }


def rare(job: PretrainingRun) -> torch.Tensor:
    """Token ids of all entries except the plain 6-mers."""
    return tile_order(len(job.model.last_projection.weight))[0][PLAIN:].long()


def start(steps: int, seed: int, rare_log2: float | None) -> PretrainingRun:
    overrides = [f"run.steps={steps}", f"run.seed={seed}", f"schedule.warmup_steps={min(60, steps)}"]
    job = PretrainingRun(load_config(DEMO_CONFIG, overrides, []), Processes.from_environment())
    if rare_log2 is not None:
        unused = rare(job)
        unused = unused[~torch.isin(unused, job.batch_at(0, 0).targets)]  # the template's own tokens stay
        share = len(unused) * 2**rare_log2
        with torch.no_grad():
            # against a plain entry's probability (1 - share) / PLAIN
            job.model.last_projection.bias[unused] += rare_log2 * math.log(2) - math.log((1 - share) / PLAIN)
    return job


def train(job: PretrainingRun, arm: str, first: int, last: int, looks: int) -> dict[str, Any]:
    """Steps first .. last - 1 of an arm; the tiles are counted `looks` times."""
    rows = TILE_ROWS if arm != "rounding" else 3 * TILE_ROWS // 4
    chunk_bytes = rows * len(job.model.last_projection.weight) * 4
    loss = functools.partial(combined_loss, skip_below=SKIP_BELOW if arm == "skip" else None)
    seen, losses = [tiles_visited(job, first)], []
    began = time.process_time()
    with (
        dispatch.using(combined_loss="chunked"),
        mock.patch.object(combined_loss_chunked, "CHUNK_BYTES", chunk_bytes),
        mock.patch.object(dnagpt_fast.model.network, "combined_loss", loss),
    ):
        for done, report in enumerate(job.loop.run(first, last, StopRequest()), start=1):
            losses.append(float(report.losses["loss"]))
            if done % max(1, (last - first) // looks) == 0:
                seen.append(tiles_visited(job, first + done))
    mean = sum(losses[-100:]) / len(losses[-100:])
    return {"cpu_seconds": round(time.process_time() - began), "loss_last_100": mean, "tiles": seen}


def weights_of(job: PretrainingRun) -> dict[str, torch.Tensor]:
    """The rows of the last projection, rare and plain ones, and their biases."""
    last = job.model.last_projection
    chosen = torch.zeros(len(last.weight), dtype=torch.bool)
    chosen[rare(job)] = True
    whole = torch.cat([last.weight, last.bias[:, None]], 1).detach()
    return {"rare": whole[chosen], "plain": whole[~chosen]}


def one_seed(options: argparse.Namespace, seed: int) -> None:
    job = start(options.steps, seed, options.rare_log2)
    before = train(job, "exact", 0, options.fork_at, options.looks) if options.fork_at else None
    fork = copy.deepcopy((job.model.state_dict(), job.loop.optimizer.state_dict()))
    exact: dict[str, torch.Tensor] = {}
    for arm in options.arms:
        job.model.load_state_dict(fork[0])
        job.loop.optimizer.load_state_dict(copy.deepcopy(fork[1]))
        row: dict[str, Any] = {"seed": seed, "arm": arm, "steps": options.steps, "fork_at": options.fork_at}
        row |= train(job, arm, options.fork_at, options.steps, options.looks)
        if arm == options.arms[0] and before:
            row["before_the_fork"] = before
        assert job.validator is not None
        answers = functools.partial(answers_of, job.model, template=job.maker.template)
        row["validation"] = job.validator(answers, job.device).to_dict()
        ends = weights_of(job)
        row["largest_weight"] = {kind: float(rows.abs().max()) for kind, rows in ends.items()}
        exact = exact or ends
        row["largest_change"] = {kind: float((ends[kind] - exact[kind]).abs().max()) for kind in ends}
        row["rms_change"] = {kind: float((ends[kind] - exact[kind]).square().mean().sqrt()) for kind in ends}
        print(json.dumps(row), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--fork-at", type=int, default=0, help="steps that the arms of a seed share")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=ARMS,
        default=ARMS,
        help="the first is the one that others are compared with",
    )
    parser.add_argument(
        "--rare-log2", type=float, help="start with this probability (log2) of each rare entry"
    )
    parser.add_argument("--looks", type=int, default=5, help="how often to count the tiles during the run")
    options = parser.parse_args()
    for seed in options.seeds:
        one_seed(options, seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
