"""The fault table of docs/faults.md: commands are killed, disks are full, outputs are links and devices.

By default each fault once; `pytest -m slow tests/faults` kills every command at twenty moments by every signal.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = ROOT / "tests" / "data" / "runs_before_the_rooms.tar.xz"
# Sets a limit on the size of files, as a disk without room; then runs the command.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from dnagpt_fast.cli import main
main(sys.argv[2:])
"""
# Every command that writes a file, with the name of what it writes. {} is the folder.
COMMANDS = {
    "score": (("score", "{}/pretrained", "{}/s.fa", "-o", "{}/out/x.tsv", "--device", "cpu"), {"x.tsv"}),
    "embed": (
        ("embed", "{}/pretrained", "{}/s.fa", "-o", "{}/out/x.npy", "--device", "cpu"),
        {"x.npy", "x.npy.names"},
    ),
    "generate": (
        ("generate", "{}/pretrained", "-o", "{}/out/x.fa", "--samples", "300", "--max-tokens", "20", "--device", "cpu"),
        {"x.fa"},
    ),
    "pack": (("pack", "{}/s.fa", "{}/out/x.2bit"), {"x.2bit"}),
    "predict": (
        ("predict", "{}/tuned", "{}/labels.csv", "-o", "{}/out/x.tsv", "--device", "cpu"),
        {"x.tsv"},
    ),
    "convert": (("convert", "{}/pretrained", "{}/out/x.safetensors", "--to", "safetensors"), {"x.safetensors"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("faults")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(made, filter="data")
    draw = random.Random(0)
    records = (f">s{i}\n{''.join(draw.choices('ACGT', k=120))}\n" for i in range(2000))
    (made / "s.fa").write_text("".join(records))
    return made


@pytest.fixture
def out(folder) -> Path:
    path = folder / "out"
    path.mkdir(exist_ok=True)
    for old in path.iterdir():
        old.unlink()
    return path


def start(folder: Path, command: str, *, most_bytes: int | None = None) -> subprocess.Popen:
    arguments = [text.format(folder) for text in COMMANDS[command][0]]
    how = ["-m", "dnagpt_fast"] if most_bytes is None else ["-c", LIMITED, str(most_bytes)]
    return subprocess.Popen(
        [sys.executable, *how, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_a_file(out: Path, process: subprocess.Popen) -> None:
    """Until the command has begun to write, or is over."""
    while process.poll() is None and not any(out.iterdir()):
        time.sleep(0.005)


def names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_leaves_nothing_half(folder, out, number):
    process = start(folder, "generate")
    wait_for_a_file(out, process)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    assert names(out) == set()


def test_a_full_disk_is_one_line_that_names_the_file_and_nothing_is_left(folder, out):
    said = (process := start(folder, "score", most_bytes=20_000)).communicate(timeout=120)[1]
    assert process.returncode == 1
    assert said.splitlines() == [f"dnagpt-fast: error: [Errno 27] File too large: '{out / 'x.tsv'}'"]
    assert names(out) == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_killed_at_any_moment_leaves_the_old_output_or_the_whole_new_one(
    folder, out, command, number
):
    began = time.monotonic()
    process = start(folder, command)
    assert process.wait(300) == 0, process.communicate()
    took = time.monotonic() - began
    made = COMMANDS[command][1]
    whole = {name: (out / name).read_bytes() for name in made}
    draw = random.Random(command)
    for _ in range(20):
        for path in out.iterdir():
            path.unlink()
        if command != "convert":  # whose target must not be there
            for name in made:
                (out / name).write_bytes(b"old")
        process = start(folder, command)
        time.sleep(draw.uniform(0, took))
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]
        assert "Traceback" not in said or process.returncode < 0, said
        for name in made & names(out):
            assert (out / name).read_bytes() in (b"old", whole[name])
        left = names(out) - made
        assert not left or number == signal.SIGKILL
        if left:  # the kernel let nobody tidy; the next command does
            assert start(folder, "pack").wait(120) == 0
            assert not [name for name in names(out) if name.endswith(".partial")]
            (out / "x.2bit").unlink()
            for path in [path for path in out.iterdir() if path.is_dir()]:
                raise AssertionError(f"{path} was left")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_at_any_byte_is_one_line(folder, out, command):
    """The limit meets the first write, one in the middle and the last."""
    process = start(folder, command)
    assert process.wait(300) == 0, process.communicate()
    largest = max((out / name).stat().st_size for name in COMMANDS[command][1])
    for limit in (0, 1, largest // 2, largest - 1):
        for path in out.iterdir():
            path.unlink()
        process = start(folder, command, most_bytes=limit)
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 1, (limit, said)
        assert len(said.splitlines()) == 1, said
        assert str(out / "x") in said or "tmp" in said, said
        assert names(out) == set()


@pytest.mark.slow
def test_a_second_resume_is_refused_while_the_first_writes(folder, tmp_path):
    settings = tmp_path / "settings.toml"
    record = json.loads((folder / "pretrained" / "config.json").read_text())["settings"]
    settings.write_text(
        f"""
[model]
max_len = 24
num_layers = 1
num_heads = 1
embedding_dim = 8
[vocabulary]
k = 1
[data]
genomes = [{{ path = "{folder / "genome.fa"}", species = "human", held_out = ["one:600-800"] }}]
[schedule]
warmup_steps = {record["schedule"]["warmup_steps"]}
[run]
steps = 4000
batch_size = 4
device = "cpu"
"""
    )
    arguments = ["pretrain", "--config", str(settings), "--out", str(tmp_path / "run"), "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    first, second = (
        subprocess.Popen(
            [sys.executable, "-m", "dnagpt_fast", *arguments],
            cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    )  # fmt: skip
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
