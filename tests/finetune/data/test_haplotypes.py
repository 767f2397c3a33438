"""Phased haplotypes: from VCF and .haps, to texts and back, and every error."""

import gzip

import numpy as np
import pysam
import pytest

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.data.haplotypes import read_haplotypes
from dnagpt_fast.genome import Genome
from dnagpt_fast.input_files import InputFileError

HEADER = (
    "##fileformat=VCFv4.2\n##contig=<ID=20>\n##contig=<ID=21>\n"
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="x">\n##FORMAT=<ID=DP,Number=1,Type=Integer,Description="x">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tP1\tP2\n"
)


def vcf(folder, *rows, suffix="vcf"):
    lines = []
    for pos, ref, alt, *genotypes in rows:
        contig, _, pos = str(pos).rpartition(":")
        lines.append(f"{contig or 20}\t{pos}\t.\t{ref}\t{alt}\t.\t.\t.\tGT\t" + "\t".join(genotypes) + "\n")
    path = folder / "x.vcf"
    path.write_text(HEADER + "".join(lines))
    if suffix == "vcf.gz":
        pysam.tabix_compress(str(path), str(path) + ".gz")
    return folder / f"x.{suffix}"


GOOD = ((2, "C", "T", "0|1", "1|0"), (5, "G", "A", "0|0", "0|1"), (7, "T", "C", "1|1", "1|1"))


@pytest.mark.parametrize("suffix", ["vcf", "vcf.gz"])
def test_a_vcf(tmp_path, suffix, capfd):
    panel = read_haplotypes(vcf(tmp_path, *GOOD, suffix=suffix), min_allele_count=0)
    assert panel.alleles.tolist() == [[0, 0, 1], [1, 0, 1], [1, 0, 1], [0, 1, 1]]
    assert panel.position_bp.tolist() == [1, 4, 6]
    assert panel.names == ["P1_1", "P1_2", "P2_1", "P2_2"]
    assert panel.texts() == ["CGC", "TGC", "TGC", "CAC"]
    assert panel.contig == "20"
    assert capfd.readouterr().err == ""  # no complaint of htslib about a missing index


def test_a_haps_file_says_the_same(tmp_path):
    lines = ["20 a 2 C T 0 1 1 0", "20 b 5 G A 0 0 0 1", "20 c 7 T C 1 1 1 1"]
    (tmp_path / "x.haps.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    ours = read_haplotypes(tmp_path / "x.haps.gz", min_allele_count=0)
    theirs = read_haplotypes(vcf(tmp_path, *GOOD), min_allele_count=0)
    assert ours.texts() == theirs.texts()
    assert ours.position_bp.tolist() == theirs.position_bp.tolist()


def test_texts_and_back(tmp_path):
    panel = read_haplotypes(vcf(tmp_path, *GOOD), min_allele_count=0)
    alleles, foreign = panel.alleles_of(panel.texts())
    assert (alleles == panel.alleles).all()
    assert foreign == 0
    alleles, foreign = panel.alleles_of(["TAC", "GAC", "T"])
    assert alleles.tolist() == [[1, 1, 1], [0, 1, 1], [1, 0, 0]]
    assert foreign == 3  # G at the first, and the two that are missing


def test_other_variants_than_common_biallelic_snps_are_counted(tmp_path, caplog):
    rows = (
        *GOOD, (8, "A", "C,G", "0|1", "0|2"), (9, "AC", "A", "0|1", "0|0"), (10, "A", "C", "0|1", "0|1"),
        (10, "A", "G", "0|1", "0|1"), (11, "A", "C", "0|0", "0|1"),
    )  # fmt: skip
    panel = read_haplotypes(vcf(tmp_path, *rows), min_allele_count=2)
    assert panel.position_bp.tolist() == [1, 9]
    assert panel.skipped == {
        "an allele seen fewer than 2 time(s)": 3,
        "not biallelic": 1,
        "not a SNP": 1,
        "second variant of one position": 1,
    }
    assert "1 (not biallelic)" in caplog.text


def test_region_and_max_sites(tmp_path):
    path = vcf(tmp_path, *GOOD, ("21:3", "A", "C", "0|1", "0|0"))
    assert read_haplotypes(path, region="20:4-7", min_allele_count=0).position_bp.tolist() == [4, 6]
    assert read_haplotypes(path, region="21").position_bp.tolist() == [2]
    assert read_haplotypes(path, region="20", max_sites=1).position_bp.tolist() == [1]
    with pytest.raises(LabelError, match=r"x.vcf:10: contig '21' after '20': choose one with data.region"):
        read_haplotypes(path)


@pytest.mark.parametrize("text", ["20:5", "20:9-5", "20:a-b"])
def test_a_bad_region(tmp_path, text):
    with pytest.raises(ValueError, match="0-based and half-open"):
        read_haplotypes(vcf(tmp_path, *GOOD), region=text)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((8, "A", "C", "0/1", "0|1"), r"x.vcf:10: genotype '0/1' of P1 is not phased: phase it"),
        ((8, "A", "C", "0|1", ".|."), r"x.vcf:10: genotype '.\|.' of P2 is missing: impute it"),
        ((8, "A", "C", "0|1", "./."), r"x.vcf:10: genotype './.' of P2 is missing: impute it"),
        ((8, "A", "C", "0|1", "1"), r"x.vcf:10: genotype '1' of P2 is not diploid"),
        ((6, "A", "C", "0|1", "0|1"), r"x.vcf:10: position 6 after 7: the file is not sorted"),
    ],
)
def test_vcf_errors_name_the_line(tmp_path, row, said):
    with pytest.raises(LabelError, match=said):
        read_haplotypes(vcf(tmp_path, *GOOD, row), min_allele_count=0)


def test_a_vcf_line_that_is_cut_off(tmp_path):
    path = vcf(tmp_path, *GOOD)
    path.write_text(path.read_text() + "20\t8\t.\tA\tC\t.\t.\t.\tGT\t0|1\n")
    with pytest.raises(LabelError, match=r"x.vcf:10: 10 tab-separated fields: wanted 11"):
        read_haplotypes(path, min_allele_count=0)


def test_a_variant_before_the_first_base_is_counted(tmp_path):
    """VCF's position 0 is the telomere, where there is no base; such a line was left out without a message."""
    panel = read_haplotypes(vcf(tmp_path, (0, "A", "C", "0|1", "0|1"), *GOOD), min_allele_count=0)
    assert panel.position_bp.min() >= 0
    assert panel.skipped["position 0, before the first base"] == 1


def test_unknown_letters_contradict_nothing(tmp_path):
    """IUPAC letters in REF, as 1000 Genomes has one of, and N in the genome."""
    (tmp_path / "g.fa").write_text(">chr20\nACTTGATNTT\n")
    odd = ((8, "A", "C", "0|1", "0|1"), (9, "M", "C", "0|1", "0|1"))
    with Genome.open(tmp_path / "g.fa") as genome:
        panel = read_haplotypes(vcf(tmp_path, *GOOD, *odd), genome=genome, min_allele_count=0)
    assert panel.position_bp[-1] == 7
    assert panel.skipped["not a SNP"] >= 1


def test_a_ref_that_contradicts_the_genome(tmp_path):
    (tmp_path / "g.fa").write_text(">chr20\nACTTGATTTT\n")
    with Genome.open(tmp_path / "g.fa") as genome:
        read_haplotypes(vcf(tmp_path, *GOOD), genome=genome, min_allele_count=0)
        wrong = (8, "G", "C", "0|1", "0|1")
        with pytest.raises(
            LabelError, match=r"x.vcf:10: REF is 'G', .*g.fa has 'T' at chr20:8: .*another assembly"
        ):
            read_haplotypes(vcf(tmp_path, *GOOD, wrong), genome=genome)
        with pytest.raises(LabelError, match=r"x.vcf:10: REF is 'T', .* has \"the contig's end\""):
            read_haplotypes(vcf(tmp_path, *GOOD, (11, "T", "C", "0|1", "0|1")), genome=genome)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("20 d 9 C T 0 1 1", r"x.haps:2: 8 fields: wanted 9"),
        ("20 d 9 C T 0 1 1 2", r"x.haps:2: allele '2'"),
        ("20 d x C T 0 1 1 1", r"x.haps:2: position = 'x'"),
        ("20 d 1 C T 0 1 1 1", r"x.haps:2: position 1 after 2"),
    ],
)
def test_haps_errors_name_the_line(tmp_path, line, said):
    (tmp_path / "x.haps").write_text(f"20 a 2 C T 0 1 1 0\n{line}\n")
    with pytest.raises(InputFileError, match=said):
        read_haplotypes(tmp_path / "x.haps")


def test_files_without_content(tmp_path):
    (tmp_path / "x.haps").write_text("")
    with pytest.raises(LabelError, match=r"the file is empty"):
        read_haplotypes(tmp_path / "x.haps")
    with pytest.raises(LabelError, match=r"no usable variants"):
        read_haplotypes(vcf(tmp_path))
    (tmp_path / "z.vcf.gz").write_bytes(gzip.compress(HEADER.encode()))
    with pytest.raises(LabelError, match=r"no usable variants"):
        read_haplotypes(tmp_path / "z.vcf.gz")
    (tmp_path / "b.vcf").write_bytes(b"BCF\2\2hello")
    with pytest.raises(LabelError, match=r"b.vcf cannot be read as BCF"):
        read_haplotypes(tmp_path / "b.vcf")
    (tmp_path / "y.vcf").write_text("hello\n")
    with pytest.raises(LabelError, match=r"y.vcf:1: 'hello': wanted the line '#CHROM POS ID"):
        read_haplotypes(tmp_path / "y.vcf")


def test_genotypes_beside_other_fields(tmp_path):
    text = HEADER + "20\t2\t.\tC\tT\t.\t.\t.\tGT:DP\t0|1:7\t1|0:9\n"
    (tmp_path / "x.vcf").write_text(text)
    assert read_haplotypes(tmp_path / "x.vcf").alleles[:, 0].tolist() == [0, 1, 1, 0]


def test_the_matrix_is_of_bytes(tmp_path):
    assert read_haplotypes(vcf(tmp_path, *GOOD)).alleles.dtype == np.uint8
