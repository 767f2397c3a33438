"""Reading and writing .2bit: real files, other readers, both byte orders, both versions, every kind of damage."""

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import py2bit
import pytest
import twobitreader
from hypothesis import given, settings
from hypothesis import strategies as st

from dnagpt_fast.genome import Genome, GenomeFileError
from dnagpt_fast.genome.fasta import read_fasta
from dnagpt_fast.genome.records import PackedRecord
from dnagpt_fast.genome.twobit import read_twobit, write_twobit
from dnagpt_fast.ops.fasta_pack import END, FastaPacker
from tests.genome.twobit_oracle import contigs_of

DATA = Path(__file__).parents[1] / "data" / "twobit"
PAIRS = [
    ("rheMac3.2bit", "rheMac3.fa.gz"),
    ("biopython_sequence.bigendian.2bit", "biopython_sequence.fa"),
    ("biopython_sequence.littleendian.2bit", "biopython_sequence.fa"),
    ("biopython_sequence.long.2bit", "biopython_sequence.fa"),
    ("bx_testMask.2bit", "bx_testMask.fa"),
    ("bx_testN.2bit", "bx_testN.fa"),
    ("bx_test.2bit", "bx_test.fa"),
]


def record_of(name: str, letters: str) -> PackedRecord:
    packer = FastaPacker()
    assert packer.feed(letters.encode()) == (len(letters), END)
    return PackedRecord.of(name, packer)


def all_of(genome: Genome) -> dict[str, str]:
    return {name: genome.sequence(name, soft_mask=True) for name in genome.names}


@pytest.mark.parametrize(("twobit", "fasta"), PAIRS)
def test_real_files_read_as_their_fasta(twobit, fasta):
    packed, text = Genome.open(DATA / twobit), Genome.open(DATA / fasta)
    assert packed.names
    for name in packed.names:
        assert packed.sequence(name, soft_mask=True) == text.sequence(name, soft_mask=True)
        assert packed.n_blocks(name).tolist() == text.n_blocks(name).tolist()
        assert packed.mask_blocks(name).tolist() == text.mask_blocks(name).tolist()
    assert all_of(packed) == contigs_of((DATA / twobit).read_bytes())


def test_pack_is_bit_identical_to_ucsc_fatotwobit(tmp_path):
    written = write_twobit(tmp_path / "x.2bit", read_fasta(DATA / "rheMac3.fa.gz"))
    assert (tmp_path / "x.2bit").read_bytes() == (DATA / "rheMac3.2bit").read_bytes()
    assert (written.contigs, written.bases, written.version) == (1, 220_640, 0)


@st.composite
def genomes(draw):
    names = draw(
        st.lists(st.text("abcXYZ019._|:-é", min_size=1, max_size=20), min_size=1, max_size=6, unique=True)
    )
    letters = st.text("ACGTNacgtn", min_size=1, max_size=70) | st.lists(
        st.tuples(st.sampled_from("ACGTNacgtn"), st.integers(1, 40)), min_size=1, max_size=8
    ).map(lambda runs: "".join(letter * count for letter, count in runs))
    return {name: draw(letters) for name in names}


@given(contigs=genomes(), version=st.sampled_from([0, 1]))
@settings(deadline=None)
def test_round_trip(tmp_path_factory, contigs, version):
    path = tmp_path_factory.mktemp("round") / "x.2bit"
    write_twobit(path, (record_of(*item) for item in contigs.items()), version=version)
    data = path.read_bytes()
    assert all_of(Genome.open(path)) == contigs
    assert contigs_of(data) == contigs
    path.write_bytes(swapped(data))
    assert all_of(Genome.open(path)) == contigs


def swapped(data: bytes) -> bytes:
    """The same file in the other byte order."""
    out = bytearray(data)

    def turn(at: int, width: int = 4) -> int:
        out[at : at + width] = data[at : at + width][::-1]
        return int.from_bytes(data[at : at + width], "little")

    _, version, count, _ = (turn(at) for at in (0, 4, 8, 12))
    at = 16
    for _ in range(count):
        at += 1 + data[at]
        record = turn(at, 8 if version else 4)
        at += 8 if version else 4
        turn(record)
        for _ in range(2):
            record += 4
            blocks = turn(record)
            for _ in range(2 * blocks):
                record += 4
                turn(record)
        turn(record + 4)
    return bytes(out)


@given(contigs=genomes())
@settings(deadline=None, max_examples=40)
def test_other_readers_see_the_same(tmp_path_factory, contigs):
    contigs = {name.replace("é", "e") + str(i): letters for i, (name, letters) in enumerate(contigs.items())}
    path = tmp_path_factory.mktemp("peers") / "x.2bit"
    write_twobit(path, (record_of(*item) for item in contigs.items()))
    with py2bit.open(str(path), True) as peer:
        assert peer.chroms() == {name: len(letters) for name, letters in contigs.items()}
        assert {name: peer.sequence(name) for name in contigs} == {
            name: letters.replace("n", "N") for name, letters in contigs.items()
        }  # it writes a masked N in upper case
        for name in contigs:
            assert [list(block) for block in peer.hardMaskedBlocks(name)] == Genome.open(path).n_blocks(
                name
            ).tolist()
            assert [list(block) for block in peer.softMaskedBlocks(name)] == Genome.open(path).mask_blocks(
                name
            ).tolist()
    peer = twobitreader.TwoBitFile(str(path))
    assert {name: str(peer[name][:]) for name in contigs} == contigs
    peer.close()


def damaged(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


@pytest.fixture
def good(tmp_path):
    """Two contigs; layout: index at 16 (a: 16..22, b: 22..28), record a at 28, then record b."""
    path = tmp_path / "good.2bit"
    write_twobit(path, [record_of("a", "ACGTNNNNacgtNNAC"), record_of("b", "GGGGGnnnCC")])
    return path


DAMAGE = {
    "signature": (lambda d: damaged(d, 0, 0x1A412744), "offset 0: .* is not a .2bit signature"),
    "version": (lambda d: damaged(d, 4, 2), "offset 4: .2bit version 2: wanted 0 or 1"),
    "count": (lambda d: damaged(d, 8, 2**32 - 1), "offset 8: 4,294,967,295 sequences do not fit"),
    "one more": (lambda d: damaged(d, 8, 3), "offset 18: sequence 0 begins at 28: wanted 4"),
    "reserved": (lambda d: damaged(d, 12, 1), "offset 12: reserved word 0x1"),
    "empty name": (lambda d: d[:16] + b"\0" + d[17:], "offset 17: "),
    "twice": (
        lambda d: d.replace(b"\x01b", b"\x01a"),
        "offset 23: sequence 1 has the name 'a' of sequence 0",
    ),
    "no text": (lambda d: d.replace(b"\x01a", b"\x01\xff"), "offset 17: sequence 0 has the name b'\\\\xff'"),
    "control": (lambda d: d.replace(b"\x01a", b"\x01\x07"), "offset 17: sequence 0 has the name .*printable"),
    "offset in header": (lambda d: damaged(d, 18, 4), "offset 18: sequence 0 begins at 4: wanted 28"),
    "offset past end": (lambda d: damaged(d, 18, 10**9), "offset 18: sequence 0 begins at 1,000,000,000"),
    "same record": (lambda d: d[:24] + d[18:22] + d[28:], "the record of 'b' begins inside that of 'a'"),
    "length": (lambda d: damaged(d, 28, 2**32 - 1), "offset 28: the packed bases of 'a' would end at"),
    "N count": (
        lambda d: damaged(d, 32, 2**32 - 1),
        "offset 32: the N blocks of 'a' would end at 34,359,738,4",
    ),
    "N unsorted": (lambda d: damaged(d, 40, 3), "offset 40: N block 3..5 of 'a': wanted sorted"),
    "N empty": (lambda d: damaged(d, 44, 0), "offset 36: N block 4..4 of 'a'"),
    "N too long": (lambda d: damaged(d, 48, 2**32 - 1), "offset 40: N block 12..4,294,967,307 of 'a'"),
    "mask count": (lambda d: damaged(d, 52, 2**31), "offset 52: the mask blocks of 'a' would end"),
    "record reserved": (lambda d: damaged(d, 64, 7), "offset 64: reserved word 0x7"),
    "short": (lambda d: d[:15], "15 bytes, less than the 16"),
    "empty": (lambda d: b"", "0 bytes"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_with_its_offset(good, kind):
    harm, words = DAMAGE[kind]
    data = harm(good.read_bytes())
    assert data != good.read_bytes()
    good.write_bytes(data)
    with pytest.raises(GenomeFileError, match=words) as caught:
        Genome.open(good)
    assert str(good) in str(caught.value)


@pytest.mark.parametrize(("at", "value"), [(56, 13), (60, 0), (60, 9)])
def test_a_bad_mask_block_is_named_when_asked_for(good, at, value):
    good.write_bytes(damaged(good.read_bytes(), at, value))
    genome = Genome.open(good)
    assert genome.sequence("a") == "ACGTNNNNACGTNNAC"
    for ask in (lambda: genome.mask_blocks("a"), lambda: genome.sequence("a", soft_mask=True)):
        with pytest.raises(GenomeFileError, match=r"offset 56: mask block .* of 'a'"):
            ask()


def test_every_truncation_is_an_error(good):
    data = good.read_bytes()
    for size in range(len(data)):
        good.write_bytes(data[:size])
        with pytest.raises(GenomeFileError, match=r"bytes|offset"):
            Genome.open(good)


def test_what_the_format_cannot_hold(tmp_path):
    path = tmp_path / "x.2bit"
    with pytest.raises(ValueError, match="no contigs"):
        write_twobit(path, [])
    with pytest.raises(ValueError, match=r"has 256 bytes: .2bit takes 1\.\.255"):
        write_twobit(path, [record_of("n" * 256, "A")])
    with pytest.raises(ValueError, match="has 510 bytes"):
        write_twobit(path, [record_of("é" * 255, "A")])
    big = PackedRecord("big", 2**32, np.empty(0, np.uint8), np.empty((0, 2)), np.empty((0, 2)))
    with pytest.raises(ValueError, match="'big' has 4,294,967,296 bases"):
        write_twobit(path, [big])
    assert list(tmp_path.iterdir()) == []


def test_a_failing_writer_leaves_the_old_file(good):
    before = good.read_bytes()

    def records():
        yield record_of("fine", "ACGT")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_twobit(good, records())
    assert good.read_bytes() == before
    assert [path.name for path in good.parent.iterdir()] == ["good.2bit"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_pack_leaves_nothing_under_the_final_name(tmp_path, how):
    fasta, output = tmp_path / "x.fa", tmp_path / "x.2bit"
    os.mkfifo(fasta)
    code = (
        "from dnagpt_fast.genome.fasta import read_fasta; from dnagpt_fast.genome.twobit import write_twobit;"
        f"write_twobit({str(output)!r}, read_fasta({str(fasta)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as child, open(fasta, "wb", buffering=0) as pipe:
        pipe.write(b">a\n" + b"ACGT\n" * 1000 + b">b\nACGT")
        child.send_signal(how)
        child.wait(timeout=60)
    assert child.returncode == -how
    assert not output.exists()


def test_a_50_gb_file_opens_at_once_and_reads_past_4_gb(tmp_path):
    """A sparse version-1 file: 48 contigs of 4.2 Gbp, 50 GB of holes; only the used parts are read."""
    path = tmp_path / "big.2bit"
    contigs, length = 48, 4_200_000_000
    index_end = 16 + contigs * 11
    record_bytes = 16 + length // 4
    with open(path, "wb") as file:
        file.write(struct.pack("<IIII", 0x1A412743, 1, contigs, 0))
        for contig in range(contigs):
            file.write(struct.pack("<B2sQ", 2, b"%02d" % contig, index_end + contig * record_bytes))
        for contig in range(contigs):
            file.seek(index_end + contig * record_bytes)
            file.write(struct.pack("<IIII", length, 0, 0, 0))
        file.seek(index_end + contigs * record_bytes - 1)
        file.write(b"\x1b")  # TCAG
    began = time.monotonic()
    genome = Genome.open(path)
    assert time.monotonic() - began < 1
    assert genome.names[-1] == "47"
    assert genome.lengths.tolist() == [length] * contigs
    assert genome.sequence("47", length - 6) == "TTTCAG"
    assert int(genome.arrays.byte_offset[47]) > 2**32
    assert genome.sequence("46", length - 6) == "TTTTTT"


def test_many_contigs_open_quickly(tmp_path):
    path = tmp_path / "many.2bit"
    write_twobit(path, (record_of(f"scaffold_{i}", "ACGNNacgt"[: 1 + i % 9]) for i in range(20_000)))
    file = read_twobit(path)
    assert len(file.names) == 20_000
    genome = Genome.open(path)
    for i in (0, 1, 4, 5, 8, 19_999):
        assert genome.sequence(f"scaffold_{i}", soft_mask=True) == "ACGNNacgt"[: 1 + i % 9]


def test_a_contig_without_bases_is_allowed(tmp_path):
    path = tmp_path / "x.2bit"
    write_twobit(path, [record_of("none", ""), record_of("a", "AC")])
    assert all_of(Genome.open(path)) == {"none": "", "a": "AC"}
