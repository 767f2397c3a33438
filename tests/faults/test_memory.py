"""Memory and time of `score` and `embed` for long contigs and for many contigs."""

import json
import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.records import PackedRecord
from dnagpt_fast.genome.twobit import write_twobit
from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.token_windows import window_chunks
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.weights.forms import save_model
from tests.faults.jobs import ENVIRONMENT, ROOT, start

LONGEST_BP = 4_000_000_000
KNOWN_BP = 1_000_000  # between the two blocks of N
MANY = 1_000_000
LONG_BP = 200_000_000
SHORT_BP = 1_000_000
MIB = 1 << 20


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """As small as a model can be, so that memory grows only by the input, and millions of tokens take a minute."""
    tokenizer = KmerTokenizer(3)
    config = ModelConfig(len(tokenizer), max_len=128, num_layers=1, num_heads=1, embedding_dim=8)
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(DNAGPT.from_config(config), tokenizer, path, "safetensors")
    return path


@pytest.fixture(scope="module")
def longest(tmp_path_factory) -> Path:
    """One contig of four billion bases, a sparse file of 1 GB with a megabyte on disk: N except for a part in
    the middle."""
    path = tmp_path_factory.mktemp("longest") / "longest.2bit"
    first, second = (0, LONGEST_BP // 2), (LONGEST_BP // 2 + KNOWN_BP, LONGEST_BP)
    blocks = (2, first[0], second[0], first[1] - first[0], second[1] - second[0])
    with open(path, "wb") as file:
        file.write(struct.pack("<IIII", 0x1A412743, 0, 1, 0))
        file.write(bytes([3]) + b"big" + struct.pack("<I", 16 + 4 + 4))
        file.write(struct.pack("<8I", LONGEST_BP, *blocks, 0, 0))
        packed_at = file.tell()
        file.seek(packed_at + first[1] // 4)
        file.write(np.random.default_rng(0).integers(256, size=KNOWN_BP // 4, dtype=np.uint8).tobytes())
        file.truncate(packed_at + LONGEST_BP // 4)
    return path


def random_contigs(path: Path, count: int, length_bp: int) -> Path:
    packed = np.random.default_rng(0).integers(256, size=(count, -(-length_bp // 4)), dtype=np.uint8)
    none = np.empty((0, 2), np.int64)
    write_twobit(path, (PackedRecord(f"c{i}", length_bp, packed[i], none, none) for i in range(count)))
    return path


@dataclass(frozen=True)
class Done:
    """A command that ended without an error: what came on standard error, its peak memory and processor seconds."""

    said: str
    largest_bytes: int
    cpu_seconds: float

    @property
    def progress(self) -> list[str]:
        """Its lines of progress."""
        return [line for line in self.said.splitlines() if line.startswith("base ")]


# A small process between this one and the command: the system counts the memory of a parent as that of its child.
BETWEEN = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
sys.stderr.write("\\n" + json.dumps([code, used.ru_maxrss * 1024, used.ru_utime + used.ru_stime]))
"""


def ran(folder: Path, *arguments: str | Path) -> Done:
    """Runs a command to its end; its output goes to folder/stdout."""
    with open(folder / "stdout", "wb") as out:
        process = subprocess.run(
            [sys.executable, "-c", BETWEEN, sys.executable, "-m", "dnagpt_fast", *arguments],
            cwd=ROOT, env={**os.environ, **ENVIRONMENT}, stdout=out, stderr=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    said, _, numbers = process.stderr.rpartition("\n")
    code, *used = json.loads(numbers)
    assert code == 0, said
    done = Done(said, *used)
    sys.stdout.write(
        f"{arguments[0]}: {done.cpu_seconds:.0f} s of processor time, {done.largest_bytes / MIB:.0f} MiB\n"
    )
    return done


def measured(what: str, genome: Path, model: Path, bases: int | None = None) -> dict:
    """The output of tests/faults/memory_of.py."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.memory_of", what, genome, model, *([] if bases is None else [str(bases)])],
        cwd=ROOT, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("what", ["score", "embed"])
def test_a_contig_of_four_billion_bases_is_begun_in_little_memory(longest, model, what):
    found = measured(what, longest, model, 400_000)
    assert 400_000 <= found["bases"] < 800_000
    assert found["reports"] > 3
    assert found["grown_bytes"] < 100 * MIB, found


@pytest.mark.slow
@pytest.mark.parametrize("what", ["score", "embed"])
def test_the_way_through_four_billion_bases_takes_no_more_memory_than_its_begin(longest, model, what):
    found = measured(what, longest, model, 20_000_000)
    assert found["bases"] >= 20_000_000
    assert found["grown_bytes"] < 100 * MIB, found
    assert found["grown_bytes"] - found["grown_early_bytes"] < 16 * MIB, found


@pytest.mark.slow
def test_all_windows_of_four_billion_bases_come_in_order_and_are_all(longest):
    """Without the model, which would take hours; it sees one chunk of windows at a time."""
    tokenizer = KmerTokenizer(6)
    with Genome.open(longest) as genome:
        bases, chunks, known = 0, 0, 0
        all_n = tokenizer.vocabulary.first_id(6)
        for chunk in window_chunks(tokenizer, [genome.range("big")], [21], 512, 0, False, 8 * 4096):
            bases += sum(window.new_bp for window in chunk)
            known += sum(bool((window.ids[1:] != all_n).any()) for window in chunk)
            chunks += 1
    assert bases == LONGEST_BP
    assert chunks == -(-(LONGEST_BP // 6 + 1) // (511 * 64))
    assert known == pytest.approx(KNOWN_BP / (6 * 511), abs=2)


@pytest.mark.parametrize("region", ["big:0-20000", "big:2000000000-2000020000", "big:3999990000-4000000000"])
def test_ranges_of_it_are_scored(longest, model, region):
    process = start("score", model, longest, "--region", region, "--device", "cpu")
    out, said = process.communicate()
    assert process.returncode == 0, said
    first, last = region.removeprefix("big:").split("-")
    assert out.splitlines()[1].split("\t")[4:6] == ["+", str(int(last) - int(first))]


def write_fasta(path: Path, length_bp: int) -> Path:
    """One random contig, in lines of a hundred bases."""
    lines = np.full((length_bp // 100, 101), ord("\n"), np.uint8)
    lines[:, :100] = np.frombuffer(b"ACGT", np.uint8)[
        np.random.default_rng(0).integers(4, size=(len(lines), 100))
    ]
    path.write_bytes(b">x\n" + lines.tobytes())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("command", ["score", "embed"])
def test_two_hundred_million_bases_stay_under_a_gigabyte_above_the_model(tmp_path, model, command):
    """The whole command, reading FASTA, compared with itself on a contig of a megabase."""
    more = ["--overlap", "0"] if command == "score" else []
    peaks = []
    for length_bp in (SHORT_BP, LONG_BP):
        genome, output = write_fasta(tmp_path / "x.fa", length_bp), tmp_path / f"{length_bp}.npy"
        done = ran(tmp_path, command, model, genome, "-o", output, *more, "--device", "cpu")
        peaks.append(done.largest_bytes)
        assert output.exists()
    assert done.progress[-1].startswith(f"base {LONG_BP}/{LONG_BP} ")
    assert peaks[1] - peaks[0] < 1000 * MIB, peaks


def test_many_contigs_are_scored_and_embedded_one_after_the_other(tmp_path, model):
    genome = random_contigs(tmp_path / "x.2bit", 3000, 20)
    for command, output in (("score", "x.tsv"), ("embed", "x.npy")):
        process = start(command, model, genome, "-o", tmp_path / output, "--device", "cpu")
        said = process.communicate()[1]
        assert process.returncode == 0, said
    assert len((tmp_path / "x.tsv").read_text().splitlines()) == 3001
    assert np.load(tmp_path / "x.npy").shape == (3000, 8)


@pytest.mark.slow
def test_a_million_contigs(tmp_path, model):
    """Each stage takes seconds, not minutes, of one core; most of the time of `score` and `embed` is the model's."""
    with open(tmp_path / "x.fa", "w") as file:
        file.writelines(f">c{i}\nACGTTGCANACGTTACGGAT\n" for i in range(MANY))
    genome = tmp_path / "x.2bit"
    packed = ran(tmp_path, "pack", tmp_path / "x.fa", genome)
    assert f"{MANY:,} contigs" in (tmp_path / "stdout").read_text()
    assert packed.said.count("contigs, ") >= packed.cpu_seconds // 10 - 1
    listed = ran(tmp_path, "info", genome)
    assert lines_of(tmp_path / "stdout") == MANY + 2
    assert packed.cpu_seconds < 100
    assert listed.cpu_seconds < 60
    for command, output in (("score", tmp_path / "x.tsv"), ("embed", tmp_path / "x.npy")):
        done = ran(tmp_path, command, model, genome, "-o", output, "--device", "cpu")
        assert done.progress[-1].startswith(f"base {20 * MANY}/{20 * MANY} "), done.said
        assert done.cpu_seconds < 200, done
        assert done.largest_bytes < 1500 * MIB
    assert lines_of(tmp_path / "x.tsv") == MANY + 1
    assert np.load(tmp_path / "x.npy", mmap_mode="r").shape == (MANY, 8)


def lines_of(path: Path) -> int:
    with open(path) as file:
        return sum(1 for _ in file)
