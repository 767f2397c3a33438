"""python -m tests.planning.measure_step_peak JSON: measures the memory of training steps on the CPU, one process per
shape.

JSON: a list of [model settings, samples, tokens, ways]; ways: {"processes": 2, "sharding": "fsdp", "checkpointing":
true}, each optional. Prints a list of bytes: the highest resident memory of process 0 during three steps, minus its
memory before the model was made. A small model runs first, so that one-time allocations of the libraries (kernels,
workspaces for packed matrices) are not counted.
"""

import gc
import json
import os
import socket
import sys

import torch
from torch import nn

from dnagpt_fast.batch import ROW_NEXT_TOKEN, ROW_ORDER, PretrainBatch, Windows
from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.training.loop import Loop, StopRequest
from dnagpt_fast.training.optimizer import build_optimizer
from dnagpt_fast.training.parallel import distribute
from dnagpt_fast.training.processes import Processes

WARM_UP = ModelConfig(4096, max_len=256, num_layers=1, num_heads=4, embedding_dim=256)


class Losses(nn.Module):
    def __init__(self, model: DNAGPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PretrainBatch) -> dict[str, torch.Tensor]:
        return {"loss": self.model.pretraining_loss(batch).total}


def train(
    config: ModelConfig, samples: int, tokens: int, processes: Processes, sharding: str, checkpointing: bool
) -> None:
    """Three optimizer steps as in pre-training."""
    device = torch.device("cpu")
    model = DNAGPT.from_config(config)
    model.number_embedding.requires_grad_(False)
    if checkpointing:
        model.recompute_blocks()
    losses = distribute(Losses(model), model.blocks, sharding, processes, device)
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
        losses_of=losses,
        optimizer=build_optimizer(model, lr=1e-4, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01),
        batch_at=lambda step, part: batch,
        lr_at=lambda step: 1e-4,
        describe=lambda batch: [],
        processes=processes,
    )
    for step in range(3):
        loop.one_step(step, StopRequest())


def resident(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))


def peak_of(
    config: ModelConfig,
    samples: int,
    tokens: int,
    processes: int = 1,
    sharding: str = "ddp",
    checkpointing: bool = False,
) -> int:
    """In child processes, which start without memory of earlier shapes."""
    reader, writer = os.pipe()
    children = []
    with socket.create_server(("127.0.0.1", 0)) as free:
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(free.getsockname()[1])
    for rank in range(processes):
        child = os.fork()
        if child:
            children.append(child)
            continue
        mine = Processes(rank, processes, rank)
        with mine.joined(torch.device("cpu"), 120.0):
            train(
                WARM_UP, 4, 256, mine, sharding, checkpointing
            )  # a forked process maps the libraries' code again
            gc.collect()
            before = resident("VmRSS")
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # reset the peak
            train(config, samples, tokens, mine, sharding, checkpointing)
            if rank == 0:
                os.write(writer, str(resident("VmHWM") - before).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        peak = answer.read()
    if any(os.waitpid(child, 0)[1] for child in children):
        raise RuntimeError(f"{config} failed")
    return int(peak)


def main() -> None:
    torch.set_num_threads(1)  # a thread pool does not survive a fork
    torch.manual_seed(0)
    shapes = json.loads(sys.argv[1])
    peaks = [
        peak_of(ModelConfig(**settings), samples, tokens, **ways)
        for settings, samples, tokens, ways in shapes
    ]
    sys.stdout.write(json.dumps(peaks))


if __name__ == "__main__":
    main()
