"""The blocks of code in README.md and docs/: one page is run from top to bottom, in one folder and one Python."""

import io
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from dnagpt_fast.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    *sorted(
        str(page.relative_to(ROOT))
        for page in (ROOT / "docs").rglob("*.md")
        if not {"generated", "_build"} & set(page.parts)
    ),
]
COMMANDS, PYTHON = ("sh", "bash"), ("python",)
# Arguments added to a command, so that a run takes seconds. Other tests check what longer runs learn.
SHORT = {
    "pretrain": ("--set", "run.steps=4", "--set", "run.batch_size=2", "--set", "schedule.warmup_steps=1"),
    "calibrate": ("--sites", "4", "--indels", "2"),
    "finetune": ("--set", "run.epochs=1", "--set", "run.batch_size=8"),
}
SHELL = re.compile(r"[|><;&$]|^\w+=")


@dataclass(frozen=True)
class Block:
    """A fenced block; line is that of its fence in the page."""

    page: str
    line: int
    language: str
    text: str


def is_notebook(page: str) -> bool:
    """Its cells run when the site is built."""
    return "{code-cell}" in (ROOT / page).read_text()


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[2], found[3])
        for found in re.finditer(r"^(```+)([\w{}-]*)[^\n]*\n(.*?)^\1$", text, re.DOTALL | re.MULTILINE)
    ]


def lines(block: Block) -> list[str]:
    """The commands of a block, continued lines joined."""
    joined = block.text.replace("\\\n", " ").splitlines()
    return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


def run_block(block: Block, folder: Path, names: dict[str, object]) -> str:
    """Runs a block in the current folder, which is `folder`; returns what it printed. A failure names page and line."""
    place = f"{block.page}, line {block.line}"
    if block.language == "toml":
        named = re.match(r"# (\S+\.toml)\n", block.text)
        if named:
            (folder / named[1]).write_text(block.text)
        return ""
    printed = io.StringIO()
    if block.language in PYTHON:
        with redirect_stdout(printed):
            exec(compile(block.text, place, "exec"), names)
        return printed.getvalue()
    for line in lines(block):
        printed.write(run_line(line, place))
    return printed.getvalue()


def run_line(line: str, place: str) -> str:
    """Commands of ours in this process; others, and those with a pipe or a variable, by bash."""
    program, *arguments = shlex.split(line, comments=True)
    if program != "dnagpt-fast" or SHELL.search(re.sub(r"#.*|'[^']*'", "", line)):
        assert program in ("dnagpt-fast", "cmp", "cat", "head", "gunzip"), (
            f"{place}: {line}: list the block in NOT_RUN"
        )
        return run_shell(line, place)
    if "--resume" not in arguments and "--demo" not in arguments:
        arguments += SHORT.get(arguments[0], ())
    printed = io.StringIO()
    with redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code, f"{place}: {line}: exit code {ended.value.code}"
    return printed.getvalue()


def run_shell(line: str, place: str) -> str:
    stand_in = f'dnagpt-fast() {{ {sys.executable} -m dnagpt_fast "$@"; }}; export -f dnagpt-fast; set -e; '
    done = subprocess.run(
        ["bash", "-c", stand_in + line], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{place}: {line}\n{done.stdout}{done.stderr}"
    return done.stdout
