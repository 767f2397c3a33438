"""The tables of docs/learning.md are those of the runs in benchmarks/results."""

import re
from pathlib import Path

import pytest

from benchmarks.pretraining_choices import main

PAGE = (Path(__file__).parents[2] / "docs" / "learning.md").read_text()
COMMANDS = re.findall(r"`python -m benchmarks\.pretraining_choices ([^`]+)`", PAGE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_is_what_its_command_prints(command, capsys):
    words = command.split()
    cut = words.index("--") if "--" in words else len(words)
    main([*words[:cut], "--table", *words[cut:]])
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) > 2
    for row in rows:
        assert row in PAGE, row
