"""Commands in difficult surroundings: folders without permission, no home, no folder for temporary files, and
another command that writes the same output."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.jobs import JOBS, ROOT, make_inputs, obey_permissions, permissions_count, start

FILES = [name for name, job in JOBS.items() if not job.makes_a_run]
# A file system that is mounted read-only, in a separate mount namespace.
MOUNTED = ("unshare", "--mount", "--map-root-user", "sh", "-c", 'mount -t tmpfs none "$0" && {} && exec "$@"')


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("surroundings"))


@pytest.fixture(scope="module")
def _permissions() -> None:
    if not permissions_count():
        pytest.skip(
            "root's power over permissions cannot be put down here: the kernel refuses PR_CAPBSET_DROP"
        )


def pack(folder: Path, output: Path) -> list[str]:
    return ["pack", str(folder / "s.fa"), str(output)]


@pytest.mark.usefixtures("_permissions")
def test_a_folder_that_nobody_may_write_into_is_named_by_the_file(folder, tmp_path):
    tmp_path.chmod(0o500)
    process = start(*pack(folder, tmp_path / "x.2bit"), before=obey_permissions)
    said = process.communicate()[1]
    assert process.returncode == 1
    assert said == f"dnagpt-fast: error: Permission denied: '{tmp_path / 'x.2bit'}'\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_permissions")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_an_input_that_nobody_may_read_is_named(folder, tmp_path, what):
    source = tmp_path / "secret" / "s.fa"
    source.parent.mkdir()
    source.write_text(">a\nACGT\n")
    (source if what == "file" else source.parent).chmod(0)
    process = start("info", source, before=obey_permissions)
    said = process.communicate()[1]
    source.parent.chmod(0o700)
    assert process.returncode == 1
    assert said == f"dnagpt-fast: error: Permission denied: '{source}'\n"


@pytest.mark.parametrize(
    "environment", [{"HOME": None}, {"HOME": "/absent"}, {"TMPDIR": "/absent"}, {"HOME": "", "TMPDIR": ""}]
)
def test_home_and_room_for_temporary_files_may_be_missing(folder, tmp_path, environment):
    process = start(*pack(folder, tmp_path / "x.2bit"), **environment)
    said = process.communicate()[1]
    assert (process.returncode, said) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["x.2bit"]


def test_of_two_commands_that_write_one_output_each_writes_it_whole(folder, tmp_path):
    other = tmp_path / "other.fa"
    other.write_text(">other\n" + "ACGT" * 500 + "\n")
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "x.2bit"
    processes = [start("pack", source, target) for source in (folder / "s.fa", other) * 2]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert [path.name for path in target.parent.iterdir()] == ["x.2bit"]
    info = start("info", target).communicate()[0].splitlines()
    assert len(info) in (202, 2)


@pytest.mark.parametrize("output", ["/dev/full"])
def test_a_device_without_room_is_named(folder, output):
    process = start(*pack(folder, Path(output)))
    said = process.communicate()[1]
    assert process.returncode == 1
    assert said == f"dnagpt-fast: error: No space left on device: '{output}'\n"


def test_closed_standard_streams_do_not_give_their_numbers_to_an_output(folder, tmp_path):
    """Libraries write messages to the numbers 1 and 2 whatever is open there."""

    def close() -> None:
        for number in range(3):
            os.close(number)

    process = start(*pack(folder, tmp_path / "x.2bit"), before=close)
    process.communicate()
    assert process.returncode == 0
    start(*pack(folder, tmp_path / "y.2bit")).communicate()
    assert (tmp_path / "x.2bit").read_bytes() == (tmp_path / "y.2bit").read_bytes()


def test_a_full_standard_output_is_named(folder):
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "dnagpt_fast", "info", folder / "s.fa"],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert process.returncode == 1
    assert process.stderr == "dnagpt-fast: error: No space left on device: standard output\n"


def test_a_pipe_whose_reader_has_gone_ends_a_command_without_a_message(folder):
    reader, writer = os.pipe()
    os.close(reader)
    process = start("info", folder / "s.fa", stdout=writer)
    os.close(writer)
    said = process.communicate(timeout=120)[1]
    assert (process.returncode, said) == (1, "")


def mounted(prepare: str, room: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`dnagpt-fast ARGUMENTS` with a small separate file system mounted on `room`."""
    shell = [*MOUNTED[:-1], MOUNTED[-1].format(prepare), str(room), sys.executable, "-m", "dnagpt_fast"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*shell, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def _mounts(tmp_path_factory) -> None:
    if mounted("true", tmp_path_factory.mktemp("room"), "--help").returncode:
        pytest.skip(
            "no file systems can be mounted here: unshare --mount --map-root-user, or mount, is refused"
        )


@pytest.mark.usefixtures("_mounts")
def test_a_file_system_that_is_read_only_is_named_by_the_file(folder, tmp_path):
    done = mounted('mount -o remount,ro "$0"', tmp_path, *pack(folder, tmp_path / "x.2bit"))
    assert done.returncode == 1
    assert done.stderr == f"dnagpt-fast: error: Read-only file system: '{tmp_path / 'x.2bit'}'\n"


@pytest.mark.usefixtures("_mounts")
def test_a_file_system_without_room_is_named_by_the_file(folder, tmp_path):
    done = mounted('mount -o remount,size=4k "$0"', tmp_path, *pack(folder, tmp_path / "x.2bit"))
    assert done.returncode == 1
    assert done.stderr == f"dnagpt-fast: error: No space left on device: '{tmp_path / 'x.2bit'}'\n"


@pytest.mark.slow
@pytest.mark.usefixtures("_permissions")
@pytest.mark.parametrize("command", JOBS)
def test_every_command_names_the_output_that_it_may_not_write(folder, command):
    out = folder / "out"
    out.chmod(0o500)
    try:
        process = start(*JOBS[command].in_folder(folder), before=obey_permissions)
        said = process.communicate(timeout=120)[1]
    finally:
        out.chmod(0o700)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("dnagpt-fast: error:")
    assert "Permission denied" in last
    assert str(out / "x") in last or str(out / ".x") in last
    assert list(out.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", JOBS)
def test_every_command_runs_without_a_home_and_with_no_temporary_folder(folder, command):
    """Libraries with settings and caches in the home folder (matplotlib, Triton, Hugging Face) use another
    folder."""
    shutil.rmtree(folder / "out")
    (folder / "out").mkdir()
    process = start(*JOBS[command].in_folder(folder), HOME="/absent", TMPDIR="/absent", XDG_CACHE_HOME=None)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert "Traceback" not in said
    made = JOBS[command].files
    assert {path.name for path in (folder / "out").iterdir()} >= made
