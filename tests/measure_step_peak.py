"""python -m tests.measure_step_peak JSON: what training steps really need on CPU, one process a shape.

JSON: a list of [model settings, samples, tokens]. Prints a list of bytes: the highest resident memory during the third
step above what the process held before the model was made. Everything the libraries set up once (kernels,
workspaces for packed matrices) is set up by a small model first, so that it counts for none.
"""

import gc
import json
import os
import sys

import torch
from torch import nn

from dnagpt_fast.batch import ROW_NEXT_TOKEN, ROW_ORDER, PretrainBatch, Windows
from dnagpt_fast.config import ModelConfig
from dnagpt_fast.model import DNAGPT
from dnagpt_fast.training.host_memory import return_freed_tensors
from dnagpt_fast.training.loop import Loop, StopRequest
from dnagpt_fast.training.optimizer import build_optimizer

WARM_UP = ModelConfig(4096, max_len=256, num_layers=1, num_heads=4, embedding_dim=256)


class Losses(nn.Module):
    def __init__(self, model: DNAGPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PretrainBatch) -> dict[str, torch.Tensor]:
        return {"loss": self.model.pretraining_loss(batch).total}


def train(config: ModelConfig, samples: int, tokens: int) -> None:
    """Three optimizer steps as pre-training makes them."""
    model = DNAGPT.from_config(config)
    model.number_embedding.requires_grad_(False)
    kinds = torch.full((samples, tokens), ROW_NEXT_TOKEN, dtype=torch.uint8)
    kinds[:, -1] = ROW_ORDER
    nowhere = torch.zeros(samples, dtype=torch.int64)
    batch = PretrainBatch(
        token_ids=torch.randint(config.vocab_size, (samples, tokens)),
        targets=torch.randint(config.vocab_size, (samples, tokens)),
        row_kind=kinds,
        gc_position=tokens - 3,
        gc_target=torch.rand(samples),
        gc_mask=torch.ones(samples, dtype=torch.bool),
        windows=Windows(nowhere, nowhere, nowhere, nowhere),
    )
    loop = Loop(
        losses_of=Losses(model),
        optimizer=build_optimizer(model, lr=1e-4, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01),
        batch_at=lambda step, part: batch,
        lr_at=lambda step: 1e-4,
        describe=lambda batch: [],
    )
    for step in range(3):
        loop.one_step(step, StopRequest())


def resident(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))


def peak_of(config: ModelConfig, samples: int, tokens: int) -> int:
    """In a child, whose memory starts afresh."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        train(WARM_UP, 4, 256)  # a forked process maps the libraries' code anew
        gc.collect()
        before = resident("VmRSS")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # forget the highest so far
        train(config, samples, tokens)
        os.write(writer, str(resident("VmHWM") - before).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        peak = answer.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"{config} ended with {status}")
    return int(peak)


def main() -> None:
    torch.set_num_threads(1)  # a thread pool would not survive the fork
    return_freed_tensors()
    torch.manual_seed(0)
    shapes = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps([peak_of(ModelConfig(**settings), *counts) for settings, *counts in shapes]))


if __name__ == "__main__":
    main()
