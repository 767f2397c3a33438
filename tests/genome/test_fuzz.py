"""Thousands of harmed files: each is refused with a GenomeFileError, or read as a second, plain reader reads it."""

import gzip
import random
import re
import struct
import warnings

import pytest

from dnagpt_fast.genome import Genome, GenomeFileError
from dnagpt_fast.genome.fasta import read_fasta
from dnagpt_fast.genome.twobit import write_twobit
from dnagpt_fast.input_files import UTF8_MARK, InputFileError
from tests.genome.twobit_oracle import contigs_of

MUTANTS = 2000
TEXT = (
    b">one first\nACGTNNacgtnnTTg\nACCA\n>two\nGGGGC\nnnnn\n>three x\nACGTACGTNNNNNNNNNNACGTAAAAaaaa\n"
    + b"ACGGTTTCAT\n" * 30
)


def harmed(chance: random.Random, data: bytes) -> bytes:
    """One or two of: flip a bit, set a byte or a word, cut, delete, repeat, swap two stretches."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 2)):
        if not out:
            break
        at, to = chance.randrange(len(out)), chance.randrange(len(out))
        kind = chance.randrange(8)
        if kind == 0:
            out[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            out[at] = chance.choice([0, 1, 10, 13, 32, 62, 65, 97, 127, 255, chance.randrange(256)])
        elif kind == 2:
            value = chance.choice([0, 1, 2, 16, 2**16, 2**31, 2**32 - 1, chance.randrange(64), len(data)])
            out[at // 4 * 4 : at // 4 * 4 + 4] = struct.pack(chance.choice("<>") + "I", value)
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            del out[at : at + chance.randint(1, 8)]
        elif kind == 5:
            out[at:at] = out[to : to + chance.randint(1, 24)]
        elif kind == 6:
            out[at] = (out[at] + chance.choice([-1, 1])) % 256
        else:
            out[at : at + 4], out[to : to + 4] = out[to : to + 4], out[at : at + 4]
    return bytes(out)


def put(path, data: bytes) -> None:
    """Overwrites in place: thousands of files made anew would cost more than the reading."""
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(data)
        file.truncate()


def read(path) -> dict[str, str]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*became N")
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
    """FASTA in a dozen lines; ValueError for what is none."""
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
    if not found or not all(found.values()):
        raise ValueError("nothing")
    return found


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
