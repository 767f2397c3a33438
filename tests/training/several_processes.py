"""`torchrun ... -m tests.training.several_processes FILE`: runs the jobs of a JSON list in several processes.

{"do": "train", "config", "run", "overrides", "resume"}      a pre-training run, as the command line starts it
{"do": "tune", "config", "run", "overrides", "resume"}       a fine-tuning run
{"do": "copy", "config", "overrides", "checkpoint", "run"}   a checkpoint, loaded and written again
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from dnagpt_fast.finetune.run import finetune
from dnagpt_fast.finetune.settings import load_finetune_config
from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.run import pretrain
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.training.checkpoint import open_checkpoint
from dnagpt_fast.training.checkpoint_writer import CheckpointWriter
from dnagpt_fast.training.processes import Processes
from tests.pretrain.torchrun_jobs import finish, torchrun


def do_together(world_size: int, jobs: list[dict], folder: Path) -> None:
    """All jobs, one after the other, in `world_size` processes."""
    path = folder / f"jobs-{world_size}.json"
    path.write_text(json.dumps(jobs))
    process = torchrun(world_size, str(path), module=["tests.training.several_processes"])
    output = finish(process)
    assert process.returncode == 0, output


def train(config: str, run: str, overrides: list[str] = (), resume: bool = False) -> None:
    pretrain(load_config(config, overrides), Path(run), resume=resume)


def tune(config: str, run: str, overrides: list[str] = (), resume: bool = False) -> None:
    finetune(load_finetune_config(config, overrides), Path(run), resume=resume)


def copy(config: str, checkpoint: str, run: str, overrides: list[str] = ()) -> None:
    job = PretrainingRun(load_config(config, overrides), Processes.from_environment())
    start = open_checkpoint(Path(checkpoint))
    start.load(job.model, job.loop.optimizer)
    with CheckpointWriter(Path(run), 1, job.processes, 150) as writer:
        writer.save(start.step, job.model, job.loop.optimizer, start.config())


def everything_in(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, whole, read as torch reads it."""
    reader = dcp.FileSystemReader(checkpoint)
    state = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    dcp.load(state, storage_reader=reader, no_dist=True)
    return state


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


if __name__ == "__main__":
    with Processes.from_environment().joined(torch.device("cpu"), 150):
        for job in json.loads(Path(sys.argv[1]).read_text()):
            {"train": train, "tune": tune, "copy": copy}[job.pop("do")](**job)
