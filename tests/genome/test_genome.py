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
from dnagpt_fast.ops.kmer_tokenize import kmer_tokenize
from dnagpt_fast.vocab import reverse_complement

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


def test_a_genome_is_a_mapping_of_its_contigs(path):
    with Genome.open(path) as genome:
        assert len(genome) == 2
        assert list(genome) == ["one", "two"] == list(genome.keys())
        assert [str(bases) for bases in genome.values()] == [text.upper() for text in SEQUENCES.values()]
        assert "one" in genome
        assert "chrtwo" in genome
        assert "three" not in genome
        assert 1 not in genome
        assert genome.get("three") is None
        assert {genome: 1}[genome] == 1
        assert genome == genome
        assert bool(genome)


def test_ranges_by_text_and_by_slices(path):
    text = SEQUENCES["one"].upper()
    with Genome.open(path) as genome:
        whole = genome["one"]
        assert len(whole) == 15
        for start, end in ((0, 15), (2, 9), (14, 15)):
            part = genome[f"one:{start}-{end}"]
            assert str(part) == text[start:end] == str(whole[start:end])
            assert part.region == f"one:{start}-{end}"
            turned = genome[f"one:{start}-{end}(-)"]
            assert str(turned) == reverse_complement(text[start:end]) == str(part.reverse_complement())
            assert turned.region == f"one:{start}-{end}(-)"
            assert str(turned[1:3]) == str(turned)[1:3]
            assert genome[turned.region].strand == "-"
        assert "".join(whole) == text
        assert whole[-1] == text[-1]
        assert str(whole[-4:]) == text[-4:]
        assert str(whole[9:3]) == ""
        assert repr(genome["two"]) == "GenomeRange('two:0-5', 5 bp, GGGGC)"
        assert str(genome["one(-)"]) == reverse_complement(text)
        with pytest.raises(IndexError, match="base 15: one:0-15 has 15"):
            whole[15]
        with pytest.raises(ValueError, match="step of -1"):
            whole[::-1]


def test_a_region_that_the_genome_does_not_have(path):
    with Genome.open(path) as genome:
        for region, message in (
            ("three", "no contig 'three'"),
            ("one:3-99", "wanted 0 <= start < end <= 15"),
            ("one:9-3", "wanted contig:start_bp-end_bp with start < end"),
        ):
            with pytest.raises(KeyError) as caught:
                genome[region]
            assert isinstance(caught.value, ValueError)
            assert message in str(caught.value)
            assert f"genome[{region!r}]" in str(caught.value)
        with pytest.raises(TypeError, match=r"genome\[0\]: wanted a str"):
            genome[0]
        with pytest.raises(TypeError, match=r"\[1.5, 3\) of 'one': wanted integers"):
            genome.sequence("one", 1.5, 3)
        assert genome.sequence("one", np.int32(1), np.uint8(3)) == "CG"


def test_a_name_that_ends_like_a_strand_is_the_contig(tmp_path):
    path = tmp_path / "x.fa"
    path.write_text(">a(-)\nACGG\n>a\nTTT\n")
    with Genome.open(path) as genome:
        assert str(genome["a(-)"]) == "ACGG"
        assert str(genome["a(-)(-)"]) == "CCGT"
        assert [len(bases) for bases in genome.values()] == [4, 3]


def test_an_open_file_of_another_library_is_named(tmp_path):
    pysam = pytest.importorskip("pysam")
    path = tmp_path / "x.fa"
    path.write_text(TEXT)
    with (
        pysam.FastaFile(str(path)) as opened,
        pytest.raises(TypeError, match=r"not FastaFile: wanted '.*x.fa'"),
    ):
        Genome.open(opened)


def test_windows_from_columns_and_arrays(path):
    pandas = pytest.importorskip("pandas")
    with Genome.open(path) as genome:
        table = pandas.DataFrame({"contig": [0, 1], "start": np.array([3, 0], np.int32)})
        found = kmer_tokenize(genome, table["contig"], table["start"], 2, k=2)
        assert found.tolist() == kmer_tokenize(genome, [0, 1], [3, 0], 2, k=2).tolist()
        with pytest.raises(ValueError, match=r"contig is <U3 .*: wanted integers .*genome.names.index"):
            kmer_tokenize(genome, np.array(["one"]), [0], 2, k=2)
