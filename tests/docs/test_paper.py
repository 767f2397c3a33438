"""The page about the paper names files, commands and pages that exist, and quotes scores as the pages beside them."""

import re
from pathlib import Path

import pytest

import dnagpt_fast
from dnagpt_fast.cli.command_line import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs"
PAGE = (FOLDER / "paper.md").read_text()
CODE = re.findall(r"`([^`]+)`", PAGE)
PATHS = sorted({text for text in CODE if re.fullmatch(r"(docs|tests|recipes|dnagpt_fast)/[\w./]+", text)})
LINKS = sorted({target for target in re.findall(r"\]\(([^)]+)\)", PAGE) if "://" not in target})


@pytest.mark.parametrize("path", PATHS)
def test_a_named_file_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("link", LINKS)
def test_a_linked_page_exists(link):
    assert (FOLDER / link).exists()


def test_named_commands_and_calls_exist():
    recipes = [text.split()[1] for text in CODE if text.startswith("python recipes/")]
    commands = [text.split()[1] for text in CODE if text.startswith("dnagpt-fast ")]
    calls = [text.removeprefix("df.") for text in CODE if text.startswith("df.")]
    assert min(map(len, (recipes, commands, calls))) > 0
    for path in recipes:
        assert (ROOT / path).is_file(), path
    assert set(commands) <= set(COMMANDS)
    for name in calls:
        assert hasattr(dnagpt_fast, name), name


def test_scores_measured_here_are_those_of_the_page_that_is_linked_beside_them():
    rows = [
        line.split("|") for line in PAGE.split("<!-- measured -->")[0].splitlines() if line.startswith("|")
    ]
    quoted = 0
    for cells in rows:
        for score in re.findall(r"\d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)", cells[3]):
            quoted += 1
            pages = [(FOLDER / link).read_text() for link in re.findall(r"\]\(([^)]+)\)", cells[3])]
            pages.append((ROOT / "recipes" / "README.md").read_text() if "[recipes]" in cells[3] else "")
            assert any(score in page for page in pages), score
    assert quoted


def test_every_published_number_has_its_source():
    for line in PAGE.splitlines():
        cells = line.split("|")
        if line.startswith("|") and re.search(r"\d\.\d", cells[2]):
            assert "*e*" in cells[2] or "issue" in cells[2], line
