"""The imports of each command: a command that only reads genomes starts without torch, the others only with torch."""

import ast
import inspect
import json
import os
import subprocess
import sys
import textwrap

import pytest
import typer

from dnagpt_fast.cli import command_line

GENOME = "dnagpt_fast/data/hg19_chr22_20-21Mb.2bit"
# Large packages of which a command may import only those that it names in COMMANDS.
LARGE = ("torch", "torch._dynamo", "triton", "transformers", "peft", "pandas", "scipy", "sklearn")
LARGE += ("pyarrow", "matplotlib", "numpy", "sympy", "torch.distributed.checkpoint")
COMMANDS = {
    "pack": {"numpy"},
    "info": {"numpy"},
    "extract": {"numpy"},
    "make-task": {"numpy"},
    "plan": {"numpy", "torch"},
    "config": {"numpy"},
    # torch's checkpoint module, which they write with, imports sympy
    "pretrain": {"numpy", "torch", "sympy", "torch.distributed.checkpoint"},
    "finetune": {"numpy", "torch", "sympy", "torch.distributed.checkpoint"},
    "generate": {"numpy", "torch"},
    "embed": {"numpy", "torch"},
    "score": {"numpy", "torch"},
    "predict": {"numpy", "torch"},
    "variants": {"numpy", "torch"},
    "calibrate": {"numpy", "torch"},
    "track": {"numpy", "torch"},
    "mutate": {"numpy", "torch"},
    "attribute": {"numpy", "torch"},
    "attention": {"numpy", "torch"},
    "evaluate": {"numpy", "torch", "sympy", "torch.distributed.checkpoint"},
    "convert": {"numpy", "torch"},
    "models": {"numpy", "torch"},
    "doctor": {"numpy", "torch"},
}


def python(code: str, *arguments: str, **environment: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def modules_of(command: str) -> list[str]:
    """The modules of the package that a command imports in its body, and those that its functions import later."""
    body = ast.parse(textwrap.dedent(inspect.getsource(command_line.function_of(command))))
    return [node.module for node in ast.walk(body) if isinstance(node, ast.ImportFrom) and node.module]


# torch is imported once, in the parent: a child has it in sys.modules even if its command does not need it
IMPORTS = """
import importlib, json, os, sys
large, commands = json.loads(sys.argv[1])
for torch_before in (False, True):
    for command, modules in commands.items():
        if (modules[0] == "torch") != torch_before:
            continue
        if torch_before:
            import torch
        sys.stdout.flush()
        if os.fork() == 0:
            for module in modules:
                importlib.import_module(module)
            print(json.dumps([command, [name for name in large if name in sys.modules]]), flush=True)
            os._exit(0)
        assert os.wait()[1] == 0, command
"""


def test_the_modules_that_each_command_imports():
    assert list(COMMANDS) == list(command_line.COMMANDS)
    asked = {
        command: (["torch"] if "torch" in wanted else ["json"]) + modules_of(command)
        for command, wanted in COMMANDS.items()
    }
    lines = python(IMPORTS, json.dumps([LARGE, asked])).splitlines()
    found = {command: set(large) for command, large in map(json.loads, lines)}
    assert found == COMMANDS


RUN = """
import sys
from dnagpt_fast.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
assert not {"torch", "pysam", "pandas", "matplotlib"} & set(sys.modules), "imported"
"""
# What else a command must not import, and that Python's end does not search for garbage: its handler runs after ours.
LITTLE = (
    """
import atexit, gc
atexit.register(lambda: print("frozen:", gc.get_freeze_count() > 10_000))
"""
    + RUN
    + """
print([name for name in sys.modules if name == "rich.console" or name.endswith("_commands")])
"""
)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("pretrain", "--help"), ("info", GENOME), ("pack", "{fasta}", "{twobit}")]
)
def test_a_command_that_reads_genomes_runs_without_torch(tmp_path, arguments):
    fasta, twobit = tmp_path / "a.fa", tmp_path / "a.2bit"
    fasta.write_text(">a\nACGTNNACGTTT\n")
    assert python(RUN, *(text.format(fasta=fasta, twobit=twobit) for text in arguments))


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [
        (("info", GENOME), ["dnagpt_fast.cli.genome_commands"]),
        (("score", "--help"), ["dnagpt_fast.cli.model_commands", "rich.console"]),
    ],
)
def test_a_command_reads_no_other_command(arguments, imported):
    *_, found, frozen = python(LITTLE, *arguments).splitlines()
    assert found == str(imported)
    assert frozen == "frozen: True"


def test_only_commands_among_the_arguments_are_read_in_full():
    def parameters_of(*arguments):
        group = typer.main.get_command(command_line.command_line(arguments))
        return {name: len(command.params) for name, command in group.commands.items()}

    complete = parameters_of(*command_line.COMMANDS)
    assert min(complete.values()) > 2
    assert parameters_of("info", GENOME) == {"info": complete["info"]}
    listed = parameters_of("--help", "info")
    assert list(listed) == list(command_line.COMMANDS)
    assert {name: number for name, number in listed.items() if number} == {"info": complete["info"]}


def test_a_model_is_built_and_read_without_a_compiler(tmp_path):
    """torch imports it, Triton and SymPy for random numbers on the meta device: see model/shapes_only.py."""
    fasta = tmp_path / "a.fa"
    fasta.write_text(">a\nACGTACGTACGT\n")
    without = RUN.replace('"torch", "pysam"', '"torch._dynamo", "triton", "sympy"')
    assert without != RUN
    # and torch's objects are not searched for garbage (cli/quick_start.py)
    without += (
        "import gc; assert gc.isenabled() and gc.get_freeze_count() > 100_000 and not gc.collect() > 10_000\n"
    )
    assert python(without, "score", "dna_gpt6m_m", str(fasta), "--device", "cpu").startswith("name\t")


def test_letters_and_counts_need_no_torch():
    python(
        f"import sys; from dnagpt_fast import Genome, ops; genome = Genome.open({GENOME!r});"
        "assert ops.sequence_text(genome, 0, 0, 9).size == 9 and genome.sequence(genome.names[0], 0, 9);"
        "ops.report; assert 'torch' not in sys.modules"
    )
