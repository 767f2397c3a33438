"""What a newcomer sees of the package in Python: `dir`, `help`, the version, and types for mypy."""

import pydoc
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dnagpt_fast as df

ROOT = Path(__file__).resolve().parents[1]


def test_dir_shows_what_is_public_and_no_more():
    shown = {name for name in dir(df) if not name.startswith("__")}
    assert shown == set(df.__all__) == {*df.HOMES, "ops"}
    assert "__version__" in dir(df)


def test_importing_the_package_imports_no_torch():
    code = "import sys, dnagpt_fast; dir(dnagpt_fast); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert df.__version__ == project["project"]["version"]
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["dnagpt_fast"]
    assert (ROOT / "dnagpt_fast" / "py.typed").is_file()


def test_help_is_a_page_that_names_everything():
    page = pydoc.plain(pydoc.render_doc(df))
    described = page.split("PACKAGE CONTENTS")[0]
    for name in df.__all__:
        assert name in described, f"{name} is not in the description of the package"
        assert name in page.split("PACKAGE CONTENTS")[1]


@pytest.mark.parametrize("name", df.__all__)
def test_everything_public_says_what_it_is(name):
    public = getattr(df, name)
    assert public.__doc__
    assert name == "ops" or public.__module__.startswith("dnagpt_fast")


def test_a_name_that_does_not_exist():
    with pytest.raises(AttributeError, match="no attribute 'embedding'"):
        df.embedding  # noqa: B018


@pytest.mark.slow
def test_types_reach_a_users_checker(tmp_path):
    """Without py.typed and the imports for type checkers, every public name is Any."""
    pytest.importorskip("mypy")
    script = tmp_path / "use.py"
    script.write_text("import dnagpt_fast as df\ndf.Genome.open(3)\nreveal_type(df.embed)\n")
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--follow-imports=silent", str(script)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert 'has incompatible type "int"' in ran.stdout
    assert "Iterator[" in ran.stdout
