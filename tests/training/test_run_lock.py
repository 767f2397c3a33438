"""Two writers of one run folder: the second is refused before it changes a byte; a stale file locks nothing."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.run_lock import FILE, sole_writer
from dnagpt_fast.training.settings import ConfigError

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.run_lock import sole_writer
with sole_writer(Path(sys.argv[1]), Processes()):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(run: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_writer_is_refused_with_the_name_of_the_first(tmp_path):
    process = holder(tmp_path)
    said = f"is being written by process {process.pid} on {platform.node()}"
    with pytest.raises(ConfigError, match=said), sole_writer(tmp_path, Processes()):
        pass
    process.communicate("")
    with sole_writer(tmp_path, Processes()):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_killed_writer_locks_nothing(tmp_path):
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert str(process.pid) in (tmp_path / FILE).read_text()
    with sole_writer(tmp_path, Processes()):
        assert f"process {os.getpid()} " in (tmp_path / FILE).read_text()


def test_a_new_folder_that_stays_empty_is_removed_and_an_old_one_stays(tmp_path):
    with sole_writer(tmp_path / "new", Processes()):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with sole_writer(tmp_path / "old", Processes()):
        pass
    assert (tmp_path / "old").is_dir()


def test_of_many_processes_at_once_only_one_writes(tmp_path):
    """Each tries until it has had the lock once; a counter that is read, and written a little later, loses
    nothing."""
    code = """
import sys, time
from pathlib import Path
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.run_lock import sole_writer
from dnagpt_fast.training.settings import ConfigError
run, done = Path(sys.argv[1]), 0
while done < 10:
    try:
        with sole_writer(run, Processes()):
            count = int((run / "count").read_text())
            time.sleep(0.002)
            (run / "count").write_text(str(count + 1))
            done += 1
    except ConfigError:
        time.sleep(0.001)
"""
    (tmp_path / "count").write_text("0")
    began = time.monotonic()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        for _ in range(3)
    ]
    assert [process.wait(120) for process in writers] == [0, 0, 0], time.monotonic() - began
    assert (tmp_path / "count").read_text() == "30"
    assert not (tmp_path / FILE).exists()


def test_links_of_a_strange_folder_are_not_written_through(tmp_path):
    """A hostile run folder could otherwise replace any file of the user who resumes it."""
    mine = tmp_path / "mine"
    mine.write_text("precious")
    for name in (FILE, "config.json", "metrics.jsonl"):
        run = tmp_path / name
        run.mkdir()
        (run / name).symlink_to(mine)
        with (
            pytest.raises(ConfigError, match=f"{run / name} is a symbolic link"),
            sole_writer(run, Processes()),
        ):
            pass
    assert mine.read_text() == "precious"
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "disk")  # on a larger disk
    with sole_writer(tmp_path / "run", Processes()):
        pass
