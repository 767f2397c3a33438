"""FASTA text: valid and invalid text, with the same results for every size of the pieces in which it is
read."""

import gzip
import os
import threading
import zlib

import numpy as np
import pysam
import pytest

from dnagpt_fast.genome import Genome, GenomeFileError, fasta
from dnagpt_fast.input_files import InputFileError


def sequences(path) -> dict[str, str]:
    with Genome.open(path) as genome:
        return {name: genome.sequence(name, soft_mask=True) for name in genome.names}


def written(tmp_path, data: bytes, name: str = "x.fa"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.fixture(params=[1, 2, 3, 7, 4 << 20], ids=lambda size: f"chunk{size}")
def chunk_bytes(request, monkeypatch):
    """Small pieces put every edge (header, CR and LF, four bases) between two reads."""
    monkeypatch.setattr(fasta, "CHUNK_BYTES", request.param)


GOOD = {
    "no final newline": (b">a\nACGT\n>b\nGG", {"a": "ACGT", "b": "GG"}),
    "crlf": (b">a x\r\nACGT\r\nAC\r\n>b\r\nGG\r\n", {"a": "ACGTAC", "b": "GG"}),
    "crlf, cut after cr": (b">a\r\nACGT\r", {"a": "ACGT"}),
    "blank lines": (b"\n\r\n>a\n\nAC\n\n\nGT\n\n>b\nT\n\n", {"a": "ACGT", "b": "T"}),
    "blanks in lines": (b">a\nACG TTT\t\nA\n", {"a": "ACGTTTA"}),
    "soft mask": (b">a\nACgtnNac\n", {"a": "ACgtnNac"}),
    "rna": (b">a\nACGUu\n", {"a": "ACGTt"}),
    "description": (b">a|b.1\tlong text > more\nAC\n", {"a|b.1": "AC"}),
    "utf-8": (">é ü\nAC\n".encode(), {"é": "AC"}),
    "one base": (b">a\nA", {"a": "A"}),
    "all n": (b">a\n" + b"N" * 9, {"a": "N" * 9}),
}


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.usefixtures("chunk_bytes")
def test_text_that_is_fasta(tmp_path, kind):
    data, wanted = GOOD[kind]
    assert sequences(written(tmp_path, data)) == wanted
    assert sequences(written(tmp_path, gzip.compress(data), "x.fa.gz")) == wanted


def test_records_without_bases_are_left_out_and_counted(tmp_path):
    """As faToTwoBit does; assemblers write them."""
    path = written(tmp_path, b">a\n>b\nAC\n>c\n\n>d\nGT\n")
    with pytest.warns(
        UserWarning, match=r"2 record\(s\) without bases were left out, the first is 'a' on line 1"
    ):
        found = [record.name for record in fasta.read_fasta(path)]
    assert found == ["b", "d"]


BAD = {
    "digit": (b">a\nACGT\nAC1T\n", r"line 3, offset 10: b'1' in contig 'a' is no sequence letter"),
    "gap": (b">a\nAC-GT\n", r"line 2, offset 5: b'-'"),
    "protein": (b">a\nMKLVE\n", r"line 2, offset 5: b'L'"),
    "greater in line": (b">a\nAC>GT\n", r"line 2, offset 5: b'>'"),
    "no record": (b"\n\n", r"no record: a FASTA file has lines that start with '>'"),
    "text first": (b"\nACGT\n>a\nAC\n", r"line 2, offset 1: b'A.*before the first '>' line"),
    "no name": (b">a\nAC\n>\nAC\n", r"line 3, offset 6: a header without a name"),
    "blank name": (b"> \t\nAC\n", r"line 1, offset 0: a header without a name"),
    "twice": (
        b">a\nAC\n>b\nA\n>a x\nGT\n",
        r"line 5, offset 11: contig 'a' appears twice; its first record is on line 1",
    ),
    "no bases at the end": (
        b">a\nAC\n>b\n\n",
        r"line 5, offset 10: the file ends in contig 'b', which has no bases",
    ),
    "header alone": (b">a", r"the file ends in contig 'a', which has no bases: is it cut short"),
    "no bases and its name again": (b">a\n>a\nAC\n", r"line 2, offset 3: contig 'a' appears twice"),
    "cr alone": (b">a\nAC\rGT\n", r"line 2, offset 5: a carriage return inside a line"),
    "cr in header": (b">a\rACGT\r", r"line 1, offset 0: a carriage return inside a line"),
    "control": (b">a\x07b c\nACGT\n", r"line 1, offset 0: a name with control characters"),
    "UTF-16": (">a\nAC\n".encode("utf-16"), r"x.*: UTF-16 text: wanted FASTA in ASCII"),
    "binary header": (b">\xff\xfe\nAC\n", r"line 1, offset 0: a name that is no UTF-8"),
    "zero byte": (b">a\nAC\0GT\n", r"line 2, offset 5: b'\\x00'"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.usefixtures("chunk_bytes")
def test_text_that_is_not(tmp_path, kind):
    data, words = BAD[kind]
    path = written(tmp_path, data)
    with pytest.raises(GenomeFileError, match=words) as caught:
        list(fasta.read_fasta(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"ACGT\n", "offset 0: b'ACGT': neither a .2bit signature, nor gzip"),
        (b"@read\nACGT\n+\nIIII\n", "neither"),
        (b"PK\2\4", "neither"),
    ],
)
def test_a_foreign_file(tmp_path, data, words):
    with pytest.raises(GenomeFileError, match=words):
        Genome.open(written(tmp_path, data))


def test_a_header_without_end_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(fasta, "CHUNK_BYTES", 1 << 16)
    with pytest.raises(GenomeFileError, match="header line of more than 1,048,576 bytes"):
        list(fasta.read_fasta(written(tmp_path, b">" + b"x" * (3 << 20))))


def test_ambiguity_letters_become_n_under_one_counted_warning(tmp_path):
    path = written(tmp_path, b">a\nACRYKMSWBDHVXNacryn\n>b\nACGT\nR\n")
    with pytest.warns(UserWarning, match="14 letters other than A C G T U N became N") as caught:
        assert sequences(path) == {"a": "ACNNNNNNNNNNNNacnnn", "b": "ACGTN"}
    assert len(caught) == 1


@pytest.fixture
def bgzf(tmp_path):
    """Several BGZF blocks (64 KiB each) of text that does not repeat."""
    letters = np.frombuffer(b"ACGT", np.uint8)[np.random.default_rng(0).integers(0, 4, 200_000)].tobytes()
    path = tmp_path / "x.fa.gz"
    with pysam.BGZFile(str(path), "wb") as file:
        file.write(b">a\n" + letters + b"\n")
    return path, letters.decode()


def test_bgzf(bgzf):
    path, letters = bgzf
    assert sequences(path) == {"a": letters}


def test_a_truncated_bgzf_is_an_error_even_between_two_blocks(bgzf):
    path, _ = bgzf
    data = path.read_bytes()
    first_block = int.from_bytes(data[16:18], "little") + 1
    for size in (first_block, len(data) - 28, len(data) - 1, first_block + 100):
        path.write_bytes(data[:size])
        with pytest.raises(InputFileError, match="the BGZF end marker is missing"):
            Genome.open(path)


def test_a_damaged_gzip_is_an_error(tmp_path):
    data = gzip.compress(b">a\n" + b"ACGTTGCA" * 999 + b"\n")
    for size in range(10, len(data), 7):
        with pytest.raises(InputFileError, match=r"offset [0-9,]+: the gzip stream (ends early|is damaged)"):
            Genome.open(written(tmp_path, data[:size]))
    wrong_sum = data[:-8] + (zlib.crc32(b"") + 1).to_bytes(4, "little") + data[-4:]
    with pytest.raises(InputFileError, match="damaged"):
        Genome.open(written(tmp_path, wrong_sum))
    with pytest.raises(InputFileError, match="damaged"):
        Genome.open(written(tmp_path, data + b"garbage"))


def test_a_gzipped_twobit_is_no_fasta(tmp_path):
    with pytest.raises(GenomeFileError, match="before the first '>' line"):
        Genome.open(written(tmp_path, gzip.compress(b"\x43\x27\x41\x1a" + bytes(60))))


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf>one\nACGT\n>two\nGG\n",
        b"> one a strain\nACGT\n>\ttwo\nGG\n",
        b">one chromosome of caf\xe9 strain\nACGT\n>two \x01\xc2\xa0\x00\nGG\n",
        gzip.compress(b"\xef\xbb\xbf>one\r\nACGT\r\n\r\n>two\r\nGG"),
        gzip.compress(b">one\nACGT\n") + gzip.compress(b">two\nGG\n"),
        b"\n \n>one\nAC GT\n>two\nGG\n",
    ],
)
@pytest.mark.usefixtures("chunk_bytes")
def test_odd_but_legal_text(tmp_path, data):
    assert sequences(written(tmp_path, data)) == {"one": "ACGT", "two": "GG"}


def test_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for data in (b">one\nACGT\n", gzip.compress(b">one\nACGT\n")):
        writer = threading.Thread(target=pipe.write_bytes, args=(data,))
        writer.start()
        with Genome.open(pipe) as genome:
            assert genome.sequence("one") == "ACGT"
        writer.join()


@pytest.mark.parametrize(("data", "said"), [(b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"PK\3\4", "zip")])
def test_other_packings_are_named(tmp_path, data, said):
    with pytest.raises(InputFileError, match=f"x.* is .*{said}.*: unpack"):
        list(fasta.read_fasta(written(tmp_path, data)))
