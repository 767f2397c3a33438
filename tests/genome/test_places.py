"""Weighted places: read from BED, GTF, GFF3 and the soft mask; overlaps of two weights are refused."""

import gzip

import numpy as np
import pytest

from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.places import disjoint, read_places, soft_masked
from dnagpt_fast.input_files import InputFileError

GTF = """\
#!genome-build x
chr1\tx\tgene\t1\t12\t.\t+\t.\tgene_id "a";
chr1\tx\texon\t3\t6\t.\t+\t.\tgene_id "a";
1\tx\texon\t5\t8\t.\t-\t.\tgene_id "b";
"""


@pytest.fixture
def genome(tmp_path):
    path = tmp_path / "g.fa"
    path.write_text(">chr1\nACGTACGTacgtACGT\n>track\nacgtACGTNN\n")
    return Genome.open(path)


def rows(weighted):
    at = weighted.intervals
    return list(
        zip(
            at.contig.tolist(),
            at.start_bp.tolist(),
            at.end_bp.tolist(),
            weighted.weight.tolist(),
            strict=True,
        )
    )


def written(tmp_path, text, name="places.txt"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(path)


@pytest.mark.parametrize("name", ["x.bed", "x.bed.gz", "x"])
def test_bed(genome, tmp_path, name):
    text = 'track name="x"\n#comment\nchr1\t2\t5\tone\t3\r\n\n1 4 9 two 3\ntrack\t0\t4\tthree\t0.5\n'
    path = written(tmp_path, text, name)
    assert rows(disjoint(read_places(genome, path, weight=2.0))) == [(0, 2, 9, 2.0), (1, 0, 4, 2.0)]
    own = read_places(genome, path, weight_column=5)
    assert rows(disjoint(own)) == [(0, 2, 9, 3.0), (1, 0, 4, 0.5)]


def test_annotation(genome, tmp_path):
    path = written(tmp_path, GTF)
    assert rows(disjoint(read_places(genome, path, weight=4.0, feature="exon"))) == [(0, 2, 8, 4.0)]
    assert rows(disjoint(read_places(genome, path))) == [(0, 0, 12, 1.0)]
    gff = GTF.replace('gene_id "a";', "ID=a").replace('gene_id "b";', "ID=b") + "##FASTA\n>chr1\nACGT\n"
    assert rows(disjoint(read_places(genome, written(tmp_path, gff), feature="exon"))) == [(0, 2, 8, 1.0)]


def test_soft_mask(genome):
    assert rows(soft_masked(genome, 0.1)) == [(0, 8, 12, 0.1), (1, 0, 4, 0.1)]


def test_overlaps_of_two_weights_name_both_lines(genome, tmp_path):
    path = written(tmp_path, "chr1\t0\t5\ta\t1\nchr1\t4\t9\tb\t2\n")
    with pytest.raises(
        InputFileError, match=r"places.txt:1 and .*places.txt:2 overlap at base 4 with weights 1 and 2"
    ):
        disjoint(read_places(genome, path, weight_column=5))
    exons = read_places(genome, written(tmp_path, GTF, "genes.gtf"), weight=5.0, feature="exon")
    with pytest.raises(InputFileError, match=r"places.txt:1 and .*genes.gtf:3 overlap at base 2"):
        disjoint([*exons, *read_places(genome, path, weight_column=5)])


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("chr1\t0\t17\n", {}, r"places.txt:1: \[0, 17\) of 'chr1': wanted 0 <= start < end <= 16"),
        ("chr1\t5\t5\n", {}, "wanted 0 <= start < end"),
        ("chr9\t0\t5\n", {}, "places.txt:1: no contig 'chr9'"),
        ("chr1\tx\t5\n", {}, "places.txt:1: start_bp = 'x': wanted an integer"),
        ("chr1\t0\n", {}, r"places.txt:1: .*wanted contig, start and end, separated by tabs; got 2 field"),
        ("chr1\t0\t4\n", {"weight_column": 5}, r"3 field\(s\): wanted 5"),
        ("chr1\t0\t4\tx\t-1\n", {"weight_column": 5}, "weight '-1': wanted a number of 0 or more"),
        ("chr1\t0\t4\tx\tnan\n", {"weight_column": 5}, "weight 'nan'"),
        ("chr1\t0\t4\n", {"feature": "exon"}, "feature = 'exon' is for GTF and GFF3"),
        (GTF, {"weight_column": 6}, "weight_column = 6 is for BED"),
        (GTF, {"feature": "CDS"}, "no line of the feature 'CDS' in it"),
        ("#nothing\n", {}, "no interval in it"),
    ],
)
def test_errors_name_file_and_line(genome, tmp_path, text, settings, message):
    with pytest.raises(ValueError, match=message):
        read_places(genome, written(tmp_path, text), **settings)


def test_the_mask_of_a_genome_without_one_is_empty(tmp_path):
    path = tmp_path / "plain.fa"
    path.write_text(">a\nACGT\n")
    weighted = soft_masked(Genome.open(path), 0.5)
    assert len(weighted.intervals) == 0
    assert weighted.weight.dtype == np.float64
