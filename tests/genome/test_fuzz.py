"""Thousands of damaged files: each raises a GenomeFileError, or gives the result of a simple second
reader."""

import gzip
import random
import re
import warnings

import pytest

from dnagpt_fast.genome import Genome, GenomeFileError
from dnagpt_fast.genome.fasta import read_fasta
from dnagpt_fast.genome.twobit import write_twobit
from dnagpt_fast.input_files import UTF8_MARK, InputFileError
from tests.genome.twobit_oracle import contigs_of
from tests.harm import harmed, put

MUTANTS = 2000
TEXT = (
    b">one first\nACGTNNacgtnnTTg\nACCA\n>two\nGGGGC\nnnnn\n>three x\nACGTACGTNNNNNNNNNNACGTAAAAaaaa\n"
    + b"ACGGTTTCAT\n" * 30
)


def read(path) -> dict[str, str]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(became N|without bases)")
        with Genome.open(path) as genome:
            return {name: genome.sequence(name, soft_mask=True) for name in genome.names}


@pytest.mark.parametrize("version", [0, 1])
def test_harmed_twobit(tmp_path, version):
    fasta, path = tmp_path / "x.fa", tmp_path / "x.2bit"
    fasta.write_bytes(TEXT)
    write_twobit(path, read_fasta(fasta), version=version)
    data = path.read_bytes()
    chance = random.Random(version)
    refused = 0
    for _ in range(MUTANTS):
        mutant = harmed(chance, data)
        put(path, mutant)
        try:
            found = read(path)
        except GenomeFileError:
            refused += 1
            continue
        assert found == contigs_of(mutant), mutant
    assert MUTANTS * 0.1 < refused < MUTANTS * 0.9  # the harm reaches both outcomes


def plain(data: bytes) -> dict[str, str]:
    """A FASTA reader in a dozen lines. Raises ValueError for bad text."""
    found: dict[str, str] = {}
    name = None
    for line in re.split(b"\r?\n", data.removeprefix(UTF8_MARK).removesuffix(b"\r")):
        if line.startswith(b">"):
            name = line[1:].split(maxsplit=1)[0].decode()
            if b"\r" in line or name in found or not name.isprintable():
                raise ValueError(line)
            found[name] = ""
            continue
        text = line.replace(b" ", b"").replace(b"\t", b"").decode("ascii")
        if text and (
            name is None or not re.fullmatch("[ACGTUNRYKMSWBDHVX]+", text, re.IGNORECASE | re.ASCII)
        ):
            raise ValueError(text)
        if text:
            text = re.sub("[RYKMSWBDHVX]", "N", re.sub("[rykmswbdhvx]", "n", text))
            found[name] += text.replace("U", "T").replace("u", "t")
    if name is None or not found[name]:
        raise ValueError("nothing at the end")
    return {name: bases for name, bases in found.items() if bases}


def outcome(reader, *arguments):
    try:
        return reader(*arguments)
    except (
        ValueError,
        IndexError,
    ):  # GenomeFileError is a ValueError; the plain reader's failures are either
        return "refused"


def test_harmed_fasta(tmp_path):
    path = tmp_path / "x.fa"
    chance = random.Random(2)
    refused = 0
    for _ in range(MUTANTS):
        mutant = harmed(chance, TEXT)
        put(path, mutant)
        try:
            found = read(path)
        except InputFileError:
            found = "refused"
            refused += 1
        if not mutant.startswith((b"\x1f\x8b", b"\x43\x27\x41\x1a", b"\x1a\x41\x27\x43")):
            assert found == outcome(plain, mutant), mutant
    assert MUTANTS * 0.1 < refused < MUTANTS * 0.9


def test_harmed_gzip(tmp_path):
    path = tmp_path / "x.fa.gz"
    data = gzip.compress(TEXT, mtime=0)
    chance = random.Random(3)
    refused = 0
    for _ in range(MUTANTS // 3):
        put(path, harmed(chance, data))
        try:
            assert read(path) == plain(TEXT)  # what gunzip accepts has its checksum
        except InputFileError:
            refused += 1
    assert refused > MUTANTS // 6
