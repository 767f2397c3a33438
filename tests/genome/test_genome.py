"""Genome: the files that it opens, and the agreement of its views."""

import gzip
import random
from importlib.resources import as_file, files

import numpy as np
import pytest
import torch

from dnagpt_fast.genome import Genome
from dnagpt_fast.genome import genome as genome_module
from dnagpt_fast.genome.pack import pack_fasta

TEXT = ">one first contig\nACGTNNacgtnn\nTTg\n>two\nGGGGC\n"
SEQUENCES = {"one": "ACGTNNacgtnnTTg", "two": "GGGGC"}


@pytest.fixture(params=["plain", "gzip", "twobit"])
def path(request, tmp_path):
    fasta = tmp_path / "x.fa"
    fasta.write_text(TEXT)
    if request.param == "gzip":
        fasta = tmp_path / "x.fa.gz"
        fasta.write_bytes(gzip.compress(TEXT.encode()))
    if request.param == "twobit":
        from dnagpt_fast.genome.fasta import read_fasta
        from dnagpt_fast.genome.twobit import write_twobit

        write_twobit(tmp_path / "x.2bit", read_fasta(fasta))
        return tmp_path / "x.2bit"
    return fasta


def test_names_lengths_and_sequence(path):
    with Genome.open(path) as genome:
        assert genome.names == ["one", "two"]
        assert genome.lengths.tolist() == [15, 5]
        assert genome.lengths.dtype == np.int64
        for name, letters in SEQUENCES.items():
            assert genome.sequence(name, soft_mask=True) == letters
            for start_bp in range(len(letters) + 1):
                for end_bp in range(start_bp, len(letters) + 1):
                    assert genome.sequence(name, start_bp, end_bp) == letters[start_bp:end_bp].upper()
                    assert genome.sequence(name, start_bp, end_bp, soft_mask=True) == letters[start_bp:end_bp]
        assert genome.n_blocks("one").tolist() == [[4, 6], [10, 12]]
        assert genome.mask_blocks("one").tolist() == [[6, 12], [14, 15]]
        assert genome.n_blocks("two").shape == (0, 2)


def test_arrays_keep_the_contract(path):
    arrays = Genome.open(path).arrays
    assert arrays.packed.dtype == torch.uint8
    for name in ("byte_offset", "length_bp", "n_block_index", "n_block_start_bp", "n_block_end_bp"):
        tensor = getattr(arrays, name)
        assert tensor.dtype == torch.int64
        assert tensor.is_contiguous()
    assert arrays.n_block_index.tolist() == [0, 2, 2]
    assert arrays.n_block_start_bp.tolist() == [4, 10]
    assert arrays.n_block_end_bp.tolist() == [6, 12]
    two = arrays.packed[arrays.byte_offset[1] :][:2].tolist()
    assert two == [0b11111111, 0b01000000]


@pytest.mark.parametrize(("start_bp", "end_bp"), [(-1, 3), (3, 2), (0, 16), (16, 16)])
def test_a_range_that_leaves_the_contig_is_an_error(path, start_bp, end_bp):
    with pytest.raises(ValueError, match=r"wanted 0 <= start_bp <= end_bp <= 15"):
        Genome.open(path).sequence("one", start_bp, end_bp)


def test_an_unknown_contig_is_an_error(path):
    with pytest.raises(ValueError, match=r"no contig 'three' in .*, which has one, two"):
        Genome.open(path).n_blocks("three")


def test_a_closed_genome_says_so(path):
    genome = Genome.open(path)
    packed = genome.arrays.packed
    genome.close()
    assert len(packed.clone())  # a tensor that is still held keeps its memory
    for use in (
        lambda: genome.arrays,
        lambda: genome.sequence("one"),
        lambda: genome.to("cpu"),
        lambda: genome.device,
    ):
        with pytest.raises(ValueError, match="is closed"):
            use()
    assert "closed" in repr(genome)


def test_writing_to_the_tensor_does_not_change_the_file(path):
    before = path.read_bytes()
    Genome.open(path).arrays.packed.fill_(0xFF)
    assert path.read_bytes() == before


def test_the_packaged_excerpt():
    with (
        as_file(files("dnagpt_fast.data") / "hg19_chr22_20-21Mb.2bit") as excerpt,
        Genome.open(excerpt) as genome,
    ):
        assert genome.names == ["22:20000001-21000000"]
        assert genome.lengths.tolist() == [1_000_000]
        blocks = genome.n_blocks(genome.names[0])
        assert blocks.tolist() == [[509431, 609431]]
        letters = genome.sequence(genome.names[0])
        assert letters.startswith("TGGGAAGGTGGGGAGGTGCTCACC")
        assert letters.count("N") == 100_000


def test_the_content_hash_is_of_the_bases_wherever_they_lie(tmp_path, monkeypatch):
    bases = "".join(random.Random(2).choices("ACGTN", k=5003))
    path = tmp_path / "x.fa"
    path.write_text(f">one\n{bases[:3001]}\n>two\n{bases[3001:]}\n")
    pack_fasta([path], tmp_path / "y.2bit")
    for most in (genome_module.MOST_HASHED, 300):  # the second takes a piece of every five
        monkeypatch.setattr(genome_module, "PIECE", 50)
        monkeypatch.setattr(genome_module, "MOST_HASHED", most)
        hashes = [Genome.open(tmp_path / name).content_hash() for name in ("x.fa", "y.2bit")]
        assert hashes[0] == hashes[1]
        other = tmp_path / "z.fa"
        for change in (("one", "eno"), (bases[:9], bases[:9].translate(str.maketrans("ACGTN", "CGTAA")))):
            other.write_text(path.read_text().replace(*change))
            assert Genome.open(other).content_hash() != hashes[0], change
