"""The page of the benchmark suites names every suite with the layout of its files, and every way."""

from pathlib import Path

from dnagpt_fast.suites.registry import SUITES
from dnagpt_fast.suites.task import WAYS

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()


def test_every_suite_is_on_the_page_with_its_layout():
    for name, suite in SUITES.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.endswith(f"| {suite.LAYOUT} |")
    assert all(f"`{way}`" in PAGE or f"`--way {way}`" in PAGE for way in WAYS)


def test_every_suite_is_in_the_recipe_and_measured():
    recipe = (Path(__file__).parents[2] / "recipes" / "benchmark_suites.toml").read_text()
    for name in SUITES:
        assert f"[suites.{name}]" in recipe
        assert f"### {name}: " in PAGE
