"""The source distribution and the wheels: their contents, with and without the packaged model, and that they run."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

pytest.importorskip("ninja")
pytest.importorskip("pybind11")
ROOT = Path(__file__).resolve().parents[2]
TOP = (
    "CHANGELOG.md CITATION.cff LICENSE MANIFEST.in README.md pyproject.toml setup.py packaging/wheel_check.py"
)
MODELS = "dnagpt_fast/data/models/"


def tracked() -> set[str]:
    """Files of the package, its native part and the build, in git or about to be."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    command += ["csrc", "dnagpt_fast", *TOP.split()]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return {name for name in listed if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone")
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(folder: Path, *command: str, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True,
        env={**os.environ, "DNAGPT_FAST_CUDA": "0", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(clone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    run(clone, sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(folder))
    (made,) = folder.iterdir()
    return made


def test_a_source_distribution_has_the_package_and_its_native_part(sdist):
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    made = {name for name in names if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    assert names - made == tracked()


def test_a_wheel_without_models(clone, tmp_path):
    command = (sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path))
    run(clone, *command, DNAGPT_FAST_MODELS="0")
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    package = {name for name in tracked() if name.startswith("dnagpt_fast/")}
    assert found == {name for name in package if not name.startswith(MODELS)} < package


@pytest.mark.slow
def test_a_wheel_from_the_source_distribution_runs(sdist, tmp_path):
    """In an environment of its own that sees only the libraries of this one, not its dnagpt_fast."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    run(source, *pip, "--wheel-dir", str(tmp_path), ".")
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "environment"
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    site = Path(run(place, python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(place, python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", str(wheel))
    environment = {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    assert "pack, score, embed and variants run" in run(
        place, python, str(source / "packaging" / "wheel_check.py"), **environment
    )
    # and as if it had been built with DNAGPT_FAST_MODELS=0
    shutil.rmtree(site / MODELS)
    command = [str(place / "bin" / "dnagpt-fast"), "score", "dna_gpt6m_m", "x.fa"]
    (place / "x.fa").write_text(">a\nACGTACGTACGT\n")
    failed = subprocess.run(
        command, cwd=place, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert failed.returncode == 1
    assert "DNAGPT_FAST_MODELS=0" in failed.stderr
    assert "Traceback" not in failed.stderr
