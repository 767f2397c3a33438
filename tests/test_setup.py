"""Building from source: clear errors, and paths with characters that shells and ninja interpret."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ninja")
pytest.importorskip("pybind11")
ROOT = Path(__file__).resolve().parents[1]


def build(clone: Path, code: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Runs `setup.py build_ext` in the clone, after some code."""
    script = (
        f"{code}\nimport runpy, sys\n"
        "sys.argv = ['setup.py', '-q', 'build_ext', '--build-temp', 't', '--build-lib', 'l']\n"
        "runpy.run_path('setup.py', run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=clone, env={**os.environ, "DNAGPT_FAST_CUDA": "0", **environment}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def clone(tmp_path):
    """A copy of only the build files, in a folder whose name a shell and ninja would expand."""
    folder = tmp_path / "$y & co's"
    (folder / "csrc").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "dnagpt_fast").mkdir()
    (folder / "csrc" / "one.cpp").write_text('#include "one.h"\nint main_of_nothing() { return ONE; }\n')
    (folder / "csrc" / "one.h").write_text("#define ONE 1\n")
    return folder


@pytest.mark.parametrize("compiler", ["/no/such/c++", "false"])
def test_no_compiler(clone, compiler):
    done = build(clone, CXX=compiler)
    assert done.returncode != 0
    assert "no C++17 compiler: install g++" in done.stderr
    assert "set CXX" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_old_setuptools(clone):
    done = build(clone, "import setuptools; setuptools.__version__ = '76.1.0'")
    assert done.returncode != 0
    assert "needs setuptools >= 77, found 76.1.0" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("c++") is None, reason="no c++ here")
def test_a_dollar_in_the_path(clone):
    done = build(clone)
    assert done.returncode == 0, done.stderr
    assert list((clone / "l" / "dnagpt_fast").glob("_native*"))


RECORDER = """#!{python}
import json, sys
if "-fsyntax-only" not in sys.argv:
    with open({log!r}, "a") as log:
        print(json.dumps(sys.argv[1:]), file=log)
    open(sys.argv[sys.argv.index("-o") + 1], "w").close()
"""


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_the_flags_of_a_platform(clone, tmp_path, platform):
    """As cibuildwheel and conda give them, on a compiler that only notes them down."""
    log, compiler = tmp_path / "log", tmp_path / "c++"
    compiler.write_text(RECORDER.format(python=sys.executable, log=str(log)))
    compiler.chmod(0o755)
    flags = {"CPPFLAGS": "-DA='b c'", "CXXFLAGS": "-O1", "LDFLAGS": "-Wl,-x", "ARCHFLAGS": "-arch arm64"}
    # setuptools is imported first: its own choices are for this machine
    code = f"import sys, setuptools.command.build_ext; sys.platform = {platform!r}"
    done = build(clone, code, CXX=str(compiler), **flags)
    assert done.returncode == 0, done.stderr
    compiled, linked = map(json.loads, log.read_text().splitlines())
    assert compiled[compiled.index("-DA=b c") + 1] == "-O1"
    assert "-Wl,-x" in linked
    darwin = platform == "darwin"
    assert ("-bundle" in linked, "-shared" in linked) == (darwin, not darwin)
    for words in (compiled, linked):
        assert (words[words.index("-arch") + 1] == "arm64") if darwin else "-arch" not in words
        assert not [word for word in words if "openmp" in word or word in ("-static", "-lrt", "-ldl")]


def test_the_source_folder_without_its_compiled_part_says_so(tmp_path):
    shutil.copytree(
        ROOT / "dnagpt_fast", tmp_path / "dnagpt_fast", ignore=shutil.ignore_patterns("*.so", "*.pyd", "data")
    )
    shutil.copy(ROOT / "setup.py", tmp_path)
    # an editable install would find the compiled part in the clone
    alone = "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]"
    command = [sys.executable, "-c", f"{alone}; import dnagpt_fast; dnagpt_fast.ops.gc_count"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert re.search(
        "imports dnagpt_fast from its source folder .*another folder.*`pip install -e .`", done.stderr
    )


def test_the_version_of_setuptools_is_that_of_the_build_system():
    wanted = re.search(r'"setuptools>=(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert wanted is not None
    assert f"setuptools >= {wanted[1]}" in (ROOT / "setup.py").read_text()
