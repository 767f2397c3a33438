"""The cells of every tutorial run in their order, in a folder of their own, in less than a minute of processor time.

The site's build runs them as notebooks; here they run as plain Python, with the commands as the processes that a shell
would start. Cells with the tag remove-cell check what the text claims.
"""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
TUTORIALS = [page for page in PAGES if page.stem != "index"]
CELL = re.compile(r"^```\{code-cell\} ipython3\n((?::[^\n]*\n)*)(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 60


def cells(page: Path) -> list[str]:
    """The code of a page's cells, with shell lines as calls of `_shell`."""
    return [_python(code) for _, code in CELL.findall(page.read_text())]


def _python(code: str) -> str:
    lines, out = iter(code.splitlines()), []
    for line in lines:
        if line.startswith("!"):
            while line.endswith("\\"):
                line = line[:-1] + next(lines).strip()
            line = f"_shell({line[1:]!r}, globals())"
        out.append(line)
    return "\n".join(out) + "\n"


SHELL = """
import os as _os, subprocess as _subprocess, sys as _sys

def _shell(command, names):
    ours = "dnagpt-fast() { " + _sys.executable + ' -m dnagpt_fast "$@"; }; set -o pipefail; '
    command = ours + command.format(**names)
    done = _subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    print(done.stdout + done.stderr)
    assert not done.returncode or done.returncode == 141, (command, done.stdout, done.stderr)
"""


def test_every_tutorial_is_in_the_index_and_has_cells():
    index = (ROOT / "docs" / "tutorials" / "index.md").read_text().splitlines()
    assert {page.stem for page in TUTORIALS} <= set(index)
    for page in TUTORIALS:
        text = page.read_text()
        assert text.startswith("---\nfile_format: mystnb\n"), page
        assert text.count("```{code-cell}") == len(cells(page)) > 2, page
        for code in cells(page):
            compile(code, str(page), "exec")


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs(page, tmp_path):
    pytest.importorskip("IPython", reason="the tutorials show pictures by IPython, of the extra [docs]")
    script = tmp_path / "cells.py"
    script.write_text(SHELL + "\n".join(cells(page)))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sys.stdout.write(f"{page.stem}: {took:.1f} s of processor time\n{done.stdout}")
    assert took < SECONDS
