"""After a kill or with a full disk there is the old output or the complete new one, and no other file.

By default each fault is tested once. `pytest -m slow tests/faults/test_commands.py` kills every command at
twenty moments with each of three signals, and fills the disk at four sizes.
"""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from dnagpt_fast.cli.command_line import COMMANDS
from dnagpt_fast.training.log import read_metrics
from tests.faults.jobs import (
    INTERRUPTED_BEFORE_IT_BEGAN,
    JOBS,
    STEPS,
    Forks,
    make_inputs,
    no_larger_files,
    start,
)

MOMENTS = 20
FILES = [name for name, job in JOBS.items() if not job.makes_a_run]
RUNS = [name for name, job in JOBS.items() if job.makes_a_run]
# These two need a new output name.
NEW_ONLY = ("convert", "track")
# What a stopped job keeps for --resume.
JOURNALS = {
    "variants": ".x.vcf.scores",
    "variants bcf": ".x.bcf.scores",
    "embed": ".x.npy.vectors",
    "score": ".x.tsv.scores",
    "calibrate": ".x.json.scores",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def forks() -> Forks:
    return Forks()


@pytest.fixture
def out(folder) -> Path:
    emptied(folder / "out")
    return folder / "out"


def emptied(folder: Path) -> None:
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()


def seconds_of(forks: Forks, arguments: list[str], out: Path) -> float:
    """Of a command whose process does not wait for the fork server's imports; its output stays."""
    for _ in range(2):
        emptied(out)
        began = time.monotonic()
        code, said = forks.run(arguments)
        assert code == 0, said
    return time.monotonic() - began


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def content(path: Path) -> bytes | dict[str, bytes]:
    """Of a file; of a folder that of all its files."""
    if path.is_dir():
        return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    return path.read_bytes()


def test_every_command_that_writes_files_is_here():
    assert set(COMMANDS) - {job.arguments.split()[0] for job in JOBS.values()} == {
        "config", "doctor", "info", "models", "plan",
        # its report has times, so two are never equal: tests/suites stops and continues it
        "evaluate",
    }  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_leaves_nothing_half(folder, out, number):
    more = ["--samples", "2000"]
    process = start(*JOBS["generate"].in_folder(folder), *more)
    while process.poll() is None and not any(out.iterdir()):
        time.sleep(0.005)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    assert names(out) == set()


def test_a_full_disk_is_one_line_that_names_the_file_and_nothing_is_left(folder, out):
    process = start(*JOBS["pack"].in_folder(folder), before=no_larger_files(2000))
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert said.splitlines() == [f"dnagpt-fast: error: File too large: '{out / 'x.2bit'}'"]
    assert names(out) == set()


@pytest.mark.slow
@pytest.mark.parametrize("command", FILES)
def test_a_command_that_is_killed_at_any_moment_leaves_the_old_output_or_the_whole_new_one(
    folder, out, forks, command
):
    arguments, made = JOBS[command].in_folder(folder), JOBS[command].files
    journal = JOURNALS.get(command)
    took = seconds_of(forks, arguments, out)
    whole = {name: content(out / name) for name in made}
    draw = random.Random(command)
    early = 0
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        for _ in range(MOMENTS):
            emptied(out)
            if command not in NEW_ONLY:
                for name in made:
                    (out / name).write_bytes(b"old")
            forked = forks.start(arguments)
            time.sleep(draw.uniform(0, took))
            forked.kill(number)
            code, said = forked.wait()
            assert code in (0, 128 + number, -number, INTERRUPTED_BEFORE_IT_BEGAN), (code, said)
            early += code == INTERRUPTED_BEFORE_IT_BEGAN
            assert "Traceback" not in said, said
            found = {name: content(out / name) for name in made & names(out)}
            assert all(found[name] in (b"old", whole[name]) for name in found), found.keys()
            assert code != 0 or found == whole
            left = names(out) - made - {journal}
            assert not left or number == signal.SIGKILL, left
            if journal in names(out):
                assert forks.run([*arguments, "--resume"])[0] == 0
                assert {name: content(out / name) for name in made} == whole
            if left:  # after SIGKILL nothing is removed; the next command does it
                assert forks.run(JOBS["pack"].in_folder(folder))[0] == 0
                assert names(out) <= {*made, "x.2bit", journal}
    assert early <= MOMENTS // 2


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS)
def test_a_run_that_is_killed_at_any_moment_goes_on_to_the_same_end(folder, out, forks, command):
    """Twenty moments: the signals take turns."""
    arguments = JOBS[command].in_folder(folder)
    took = seconds_of(forks, arguments, out)
    losses = [record["loss"] for record in read_metrics(out / "x")]
    assert len(losses) == STEPS[command]
    draw = random.Random(command)
    for moment in range(MOMENTS):
        emptied(out)
        number = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)[moment % 3]
        forked = forks.start(arguments)
        time.sleep(draw.uniform(0, took))
        forked.kill(number)
        code, said = forked.wait()
        assert code in (0, 128 + number, -number, INTERRUPTED_BEFORE_IT_BEGAN), (code, said)
        assert "Traceback" not in said, said
        code, said = forks.run([*arguments, "--resume"])
        assert code == 0, said
        assert [record["loss"] for record in read_metrics(out / "x")] == losses
        assert names(out) == {"x"}
        assert not [path for path in (out / "x").rglob("*") if path.name.endswith((".partial", ".writer"))]


@pytest.mark.slow
@pytest.mark.parametrize("command", JOBS)
def test_a_full_disk_at_any_byte_is_one_line(folder, out, forks, command):
    """The limit hits the first write, one in the middle and the last. A run that has started can be
    resumed."""
    arguments, made = JOBS[command].in_folder(folder), JOBS[command].files
    code, said = forks.run(arguments)
    assert code == 0, said
    largest = max(file.stat().st_size for file in out.rglob("*") if file.is_file())
    for limit in (0, 1, largest // 2, largest - 1):
        emptied(out)
        code, said = forks.run(arguments, limit)
        assert code == 1, (limit, said)
        lines = [line for line in said.splitlines() if line.startswith("dnagpt-fast: error:")]
        assert len(lines) == 1, said
        assert "Traceback" not in said, said
        assert str(out / "x") in lines[0] or "/x/" in lines[0] or "tmp" in lines[0], said
        if not JOBS[command].makes_a_run:
            assert names(out) - {JOURNALS.get(command)} == set()
            continue
        code, said = forks.run([*arguments, "--resume"] if names(out) else arguments)
        assert code == 0, said
        assert len(read_metrics(out / "x")) == STEPS[command]
        assert names(out) == made


@pytest.mark.slow
def test_a_second_resume_is_refused_while_the_first_writes(folder, out):
    arguments = [*JOBS["pretrain"].in_folder(folder), "--resume", "--set", "run.steps=4000"]
    first, second = start(*arguments), start(*arguments)
    deadline = time.monotonic() + 120
    while first.poll() is None and second.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    refused, other = (first, second) if first.poll() is not None else (second, first)
    said = refused.communicate()[1]
    assert refused.returncode == 1
    assert f"is being written by process {other.pid} on" in said
    other.send_signal(signal.SIGTERM)
    other.communicate(timeout=120)
