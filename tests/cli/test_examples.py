"""The examples under --help: each is run as it is printed, in a folder that has the files that it names."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from dnagpt_fast.cli import main
from dnagpt_fast.cli.command import help_and_examples
from dnagpt_fast.cli.command_line import COMMANDS, function_of
from dnagpt_fast.genome.pack import pack_fasta
from tests.faults.jobs import make_inputs

EXAMPLES = [example for name in COMMANDS for example in help_and_examples(function_of(name))[1]]
# These need no model: they run by default, the others with `pytest -m slow`.
FAST = ("pack", "info", "make-task", "config", "models")
# What is added so that an example ends soon.
SMALL = {
    "make-task": "--window-bp 60 --block-bp 100 --negatives 9",
    "pretrain": "--set run.steps=2 --set schedule.warmup_steps=0 --set run.batch_size=4 --set validation.max_windows=4",
    "finetune": "--set run.epochs=1 --set run.warmup_epochs=0 --set data.label_column=label",
    "calibrate": "--context-bp 12 --after-bp 6 --sites 2 --indels 2",
    "variants": "--context-bp 12 --after-bp 6",
    "mutate": "--context-bp 12 --after-bp 6",
}
# `evaluate` needs the data of a benchmark: tests/suites runs it.
NOT_RUN = ("evaluate",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files that the examples name."""
    folder = make_inputs(tmp_path_factory.mktemp("examples"), sequences=4)
    pack_fasta([folder / "genome.fa"], folder / "genome.2bit")
    subprocess.run(["gzip", "-k", "genome.fa"], cwd=folder, check=True)
    (folder / "s.fa").rename(folder / "promoters.fa")
    (folder / "peaks.bed").write_text("one\t100\t160\tpeak1\none\t200\t260\tpeak2\n")
    (folder / "in.vcf").rename(folder / "variants.vcf")
    return folder


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, example: str) -> None:
    *before, command = example.split(" | ")
    name, *arguments = shlex.split(command.removeprefix("dnagpt-fast "))
    arguments += shlex.split(SMALL.get(name, ""))
    monkeypatch.chdir(folder)
    if before:
        fed = subprocess.Popen(shlex.split(before[0]), stdout=subprocess.PIPE)
        assert fed.stdout is not None
        kept = os.dup(0)
        os.dup2(fed.stdout.fileno(), 0)
    try:
        with pytest.raises(SystemExit) as ended:
            main([name, *arguments])
    finally:
        if before:
            os.dup2(kept, 0)
            os.close(kept)
            fed.stdout.close()
            assert fed.wait() == 0
    assert not ended.value.code


def marked(example: str) -> object:
    name = example.split(" | ")[-1].split()[1]
    return pytest.param(example, marks=() if name in FAST else pytest.mark.slow)


@pytest.mark.parametrize(
    "example", [marked(example) for example in EXAMPLES if example.split(" | ")[-1].split()[1] not in NOT_RUN]
)
def test_an_example_runs(folder, monkeypatch, example):
    run(folder, monkeypatch, example)
