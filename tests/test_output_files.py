"""Files are complete or absent after errors, signals, full disks, and with links, pipes, devices, other
processes."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from dnagpt_fast import output_files
from dnagpt_fast.output_files import (
    FastaFile,
    TextFile,
    VectorFile,
    is_stream,
    refuse_inputs,
    whole,
    whole_file,
    whole_folder,
    write_text,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("ending", ["npy", "safetensors"])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_vectors_come_back(tmp_path, ending, count):
    path = tmp_path / f"x.{ending}"
    vectors = [np.arange(5, dtype=np.float32) + i for i in range(count)]
    with VectorFile(path) as out:
        out.write(vectors[:2])
        out.write(vectors[2:])
        assert not path.exists()
    back = np.load(path) if ending == "npy" else load_file(path)["embeddings"]
    assert back.shape == (count, 5 if count else 0)
    assert back.dtype == np.float32
    assert np.array_equal(back, np.array(vectors, np.float32).reshape(back.shape))
    assert list(tmp_path.iterdir()) == [path]


def test_fasta_lines_and_titles(tmp_path):
    path = tmp_path / "x.fa"
    with FastaFile(path) as out:
        out.write("one more words", "ACGT" * 31)
        out.write("two", "")
    assert path.read_text() == ">one more words\n" + "ACGT" * 15 + "\n" + "ACGT" * 15 + "\nACGT\n>two\n"


@pytest.mark.parametrize("kind", [FastaFile, TextFile, VectorFile, whole, whole_file])
def test_an_interrupted_file_leaves_the_old_one_and_no_half(tmp_path, kind):
    path = tmp_path / "x.npy"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), kind(path):
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_input_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"\.npy or \.safetensors"):
        VectorFile(tmp_path / "x.txt")
    with pytest.raises(ValueError, match=r"wanted \(3,\)"), VectorFile(tmp_path / "x.npy") as out:
        out.write([np.zeros(3), np.zeros(4)])
    with pytest.raises(ValueError, match="one line"), FastaFile(tmp_path / "x.fa") as fasta:
        fasta.write("a\nb", "ACGT")
    assert not list(tmp_path.iterdir())


def test_a_symbolic_link_stays_and_its_target_is_replaced_whole(tmp_path):
    there, links = tmp_path / "there", tmp_path / "links"
    there.mkdir()
    links.mkdir()
    (there / "real.txt").write_text("old")
    link, link_of_link, dangling = links / "a", links / "b", links / "c"
    link.symlink_to("../there/real.txt")
    link_of_link.symlink_to("a")
    dangling.symlink_to(there / "new.txt")
    for path, target in ((link, "real.txt"), (link_of_link, "real.txt"), (dangling, "new.txt")):
        with TextFile(path) as out:
            out.write(path.name)
        assert path.is_symlink()
        assert (there / target).read_text() == f"{path.name}\n"
        assert not (there / target).is_symlink()
    assert len(list(links.iterdir())) == 3
    assert len(list(there.iterdir())) == 2


@pytest.mark.parametrize("kind", ["record by record", "by a library"])
def test_a_pipe_is_written_to(tmp_path, kind):
    pipe = tmp_path / "pipe.npy"
    os.mkfifo(pipe)
    came: list[bytes] = []
    reader = threading.Thread(target=lambda: came.append(pipe.read_bytes()))
    reader.start()
    if kind == "record by record":
        with TextFile(pipe) as out:
            out.write("a line")
    else:
        with VectorFile(pipe) as out:
            out.write([np.ones(3, np.float32)])
    reader.join(20)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert len(came) == 1
    assert came[0] == b"a line\n" or came[0][:6] == b"\x93NUMPY"
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_written_to_and_stays_a_device(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.write_text("x")
    except PermissionError:
        pytest.skip("no devices on this file system")
    with whole(device) as temporary:
        temporary.write_text("x")
    write_text(device, "x")
    assert stat.S_ISCHR(device.stat().st_mode)


def in_its_own_process(code: str, *arguments: str, **settings) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", f"from dnagpt_fast.output_files import *\nimport sys, os\n{code}", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        **settings,
    )


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("to", ["pipe", "file"])
def test_standard_output_is_written_to_in_its_turn(tmp_path, name, to):
    """Also if it is a file: what this process wrote before and writes after stays."""
    code = (
        "print('before')\nwith TextFile(sys.argv[1]) as out: out.write('a line')\nprint('after', flush=True)"
    )
    path = tmp_path / "out"
    if to == "pipe":
        came = in_its_own_process(code, name, capture_output=True, text=True).stdout
    else:
        with open(path, "w") as file:
            in_its_own_process(code, name, stdout=file)
        came = path.read_text()
    assert came == "before\na line\nafter\n"


def test_what_is_a_stream(tmp_path):
    link = tmp_path / "out"
    link.symlink_to("/dev/stdout")
    assert all(map(is_stream, ("-", "/dev/stdout", "/dev/null", link)))
    assert not any(map(is_stream, (tmp_path, tmp_path / "absent", __file__, "")))


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_follows_the_umask_even_if_a_library_changes_it(tmp_path, mask, mode):
    def private(path: Path) -> None:
        path.write_text("x")
        path.chmod(0o600)

    before = os.umask(mask)
    try:
        with whole(tmp_path / "file") as temporary:
            private(temporary)
        with whole_folder(tmp_path / "folder") as temporary:
            private(temporary / "inside")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
    assert (tmp_path / "folder" / "inside").stat().st_mode & 0o777 == mode
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_replaced_file_keeps_its_mode(tmp_path):
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o640)
    write_text(path, "new")
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("where", ["write", "fsync", "fsync of the folder"])
def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, monkeypatch, where):
    path = tmp_path / "x.txt"
    flushed = os.fsync

    def full(handle):
        if (where == "fsync") == stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.ENOSPC, "No space left on device")
        flushed(handle)

    if where == "write":
        code = (
            "import resource, signal\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
            "with TextFile(sys.argv[1]) as out:\n"
            "    for i in range(3000): out.write('a line')"
        )
        done = in_its_own_process(code, str(path), capture_output=True, text=True)
        assert f"File too large: '{path}'" in done.stderr
    else:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=rf"No space left on device: '{path}'"), TextFile(path) as out:
            out.write("a line")
    # A file that already has its name is complete, although the name may not be on the disk yet.
    assert list(tmp_path.iterdir()) == ([path] if where == "fsync of the folder" else [])


def test_of_two_files_the_one_that_fails_is_named_and_neither_appears(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"

    def both():
        with TextFile(first) as one, TextFile(second) as two:
            monkeypatch.setattr(
                one, "_complete", lambda: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))
            )
            two.write("x")
            for file in (two, one):
                file.finish()

    with pytest.raises(OSError, match=f"full: '{first}'"):
        both()
    assert list(tmp_path.iterdir()) == []


def test_errors_name_what_was_asked_for(tmp_path):
    for path, kind in ((tmp_path / "absent" / "x", FileNotFoundError), (tmp_path, IsADirectoryError)):
        with pytest.raises(kind) as caught, TextFile(path):
            pass
        assert caught.value.filename == str(path)
    # An error about another file keeps its name.
    with pytest.raises(FileNotFoundError) as caught, TextFile(tmp_path / "x"):
        (tmp_path / "input").read_text()
    assert caught.value.filename == str(tmp_path / "input")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named_by_the_file(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError) as caught, TextFile(tmp_path / "x"):
        pass
    assert caught.value.filename == str(tmp_path / "x")


def test_long_names_are_written(tmp_path):
    path = tmp_path / ("n" * 251 + ".npy")
    with VectorFile(path) as out:
        out.write([np.ones(2, np.float32)])
    assert np.load(path).shape == (1, 2)


def test_the_input_is_not_replaced(tmp_path):
    path, link = tmp_path / "s.fa", tmp_path / "link"
    path.write_text(">a\nACGT\n")
    link.symlink_to(path)
    with pytest.raises(ValueError, match="would replace its own input"):
        refuse_inputs(link, tmp_path / "other", path)
    refuse_inputs(tmp_path / "new", path)
    refuse_inputs(os.devnull, os.devnull)


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_has_is_not(tmp_path):
    """Both are temporary folders with a lock file; only the kernel knows which writer is alive."""
    code = "with TextFile(sys.argv[1]) as out:\n    print('writing', flush=True)\n    sys.stdin.read()"
    living, killed = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from dnagpt_fast.output_files import *\nimport sys\n{code}",
                str(tmp_path / name),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("living", "killed")
    ]
    for process in (living, killed):
        assert process.stdout.readline() == "writing\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(list(tmp_path.iterdir())) == 2
    write_text(tmp_path / "mine", "x")
    assert len(list(tmp_path.iterdir())) == 2, "the killed one's, or the living one's too"
    living.communicate("")
    assert living.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["living", "mine"]


def test_a_folder_without_a_lock_is_swept_when_it_is_old_and_foreign_names_never(tmp_path):
    made = tmp_path / ".abcd1234.partial"
    foreign = tmp_path / ".somebody-elses.partial"
    for folder in (made, foreign):
        folder.mkdir()
    write_text(tmp_path / "x", "x")
    assert made.exists()
    old = time.time() - 2 * output_files.SECONDS_TO_LOCK
    for folder in (made, foreign):
        os.utime(folder, (old, old))
    write_text(tmp_path / "x", "x")
    assert not made.exists()
    assert foreign.exists()


def test_a_link_to_no_file_is_followed_and_a_link_to_itself_is_an_error(tmp_path):
    (tmp_path / "dangling").symlink_to("made")
    write_text(tmp_path / "dangling", "x")
    assert (tmp_path / "dangling").is_symlink()
    assert (tmp_path / "made").read_text() == "x"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=f"symbolic links.*{tmp_path / 'loop'}"):
        write_text(tmp_path / "loop", "x")
    assert (tmp_path / "loop").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"dangling", "made", "loop"}


def test_a_folder_that_is_removed_while_a_file_is_written_is_an_error_that_names_the_file(tmp_path):
    target = tmp_path / "gone" / "x"
    target.parent.mkdir()
    writing = whole_file(target)
    writing.__enter__().write(b"x")
    shutil.rmtree(target.parent)
    with pytest.raises(FileNotFoundError, match=str(target)):
        writing.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []
