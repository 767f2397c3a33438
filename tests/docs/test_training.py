"""Runs the commands of docs/training.md on CPUs: with two processes instead of eight, a tiny model, one
machine in place of two, and stand-ins for Slurm's commands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dnagpt_fast.pretrain.mix import read_table
from dnagpt_fast.pretrain.run import load_run
from dnagpt_fast.pretrain.settings import load_config
from tests.pretrain.runs import GENOME, ROOT, metrics, write_config
from tests.pretrain.torchrun_jobs import same_curve

PAGE = (ROOT / "docs/training.md").read_text()
BLOCKS = re.findall(r"\*\(run[^)]*\)\*\n\n```(?:sh|bash)\n(.*?)```", PAGE, re.DOTALL)


def stand_in(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with the files of the page, and the commands on the PATH."""
    config = write_config(tmp_path).read_text()
    config = re.sub(r"genomes = .*", 'genome_table = "mix.tsv"', config)
    (tmp_path / "mix.toml").write_text(config.replace("num_layers = 1", "num_layers = 2"))
    shutil.copy(GENOME, tmp_path / "human.2bit")
    (tmp_path / "mix.tsv").write_text("path\tspecies\tweight\theld_out\nhuman.2bit\thuman\t3.1\t\n")
    commands = tmp_path / "bin"
    commands.mkdir()
    stand_in(commands, "dnagpt-fast", f'exec {sys.executable} -m dnagpt_fast "$@"')
    text = f"""processes=2; [[ "$*" == *--nnodes=2* ]] && processes=1
exec {sys.executable} -m torch.distributed.run "${{@/--nproc-per-node=8/--nproc-per-node=$processes}}\""""
    stand_in(commands, "torchrun", text)
    stand_in(commands, "scontrol", "echo 127.0.0.1")
    stand_in(commands, "srun", 'shift\nSLURM_NODEID=0 "$@" & SLURM_NODEID=1 "$@" & wait %1 && wait %2')
    return tmp_path


def run(place: Path, command: str, **environment: str) -> str:
    done = subprocess.run(
        ["bash", "-ec", command], capture_output=True, text=True, cwd=place, timeout=300, check=False,
        env={
            **os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", **environment,
        },
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_the_settings_and_the_table_are_what_they_are_called(tmp_path):
    toml, places = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "mix.toml").write_text(toml)
    config = load_config(tmp_path / "mix.toml")
    (tmp_path / "places.toml").write_text(places)
    (weighed,) = load_config(tmp_path / "places.toml").data.genomes
    assert [place.weight for place in weighed.places] == [10.0, 1.0, 1.0]
    assert [place.loss_weight for place in weighed.places] == [1.0, 1.0, 2.0]
    assert weighed.soft_masked_weight == 0.2
    assert config.data.genome_table == str(tmp_path / "mix.tsv")
    (table,) = re.findall(r"```text\n(path\t.*?)```", PAGE, re.DOTALL)
    (tmp_path / "mix.tsv").write_text(table)
    assert [row.species for row in read_table(tmp_path / "mix.tsv")] == ["human", "mouse", "bovine"]


@pytest.mark.slow  # nine jobs of one to two processes
def test_the_commands_do_what_the_page_says(place):
    plan, one, eight, sharded, machines, slurm, resume, export = BLOCKS
    assert "hours" in run(place, plan)
    run(place, one)
    straight = place / "run"
    run(place, eight.replace("--out run", "--out eight"))
    run(place, sharded)
    both = f"NODE=0; {{ {machines} }} & first=$!; NODE=1; {{ {machines} }}; wait $first"
    run(place, both, FIRST="127.0.0.1")
    run(place, slurm)
    for name in ("eight", "sharded", "two", "slurm"):
        same_curve(place / name, straight)
    shutil.rmtree(straight / "checkpoints" / "step-00000012")
    before = metrics(straight)
    assert "step 8 of 12" in " ".join(run(place, resume).split())
    assert metrics(straight) == before
    run(place, export)
    weights = load_run(straight)[0].state_dict()
    official = torch.load(place / "model.pth", weights_only=True)
    official = official.get("model", official)
    assert all(torch.equal(official[name], tensor) for name, tensor in weights.items())
    assert (place / "model.safetensors").is_file()
    assert (place / "model-hf" / "config.json").is_file()
