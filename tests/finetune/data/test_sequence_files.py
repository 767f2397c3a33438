"""FASTA with labels in the headers; BED and a genome, strand-aware."""

import gzip

import pytest

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.data.sequence_files import read_bed, read_labelled_fasta
from dnagpt_fast.genome import Genome
from dnagpt_fast.input_files import InputFileError


@pytest.mark.parametrize("compress", [False, True])
def test_labels_of_a_fasta(tmp_path, compress):
    text = b">a label=yes split=train x=1.5\nACgt\nAC\n>b x=2|label=no;split=test\nTT\n"
    path = tmp_path / ("x.fa.gz" if compress else "x.fa")
    path.write_bytes(gzip.compress(text) if compress else text)
    rows = read_labelled_fasta(path, number_columns=["x"])
    assert rows.sequence == ["ACGTAC", "TT"]
    assert rows.label == ["yes", "no"]
    assert rows.split == ["train", "test"]
    assert rows.numbers.tolist() == [[1.5], [2.0]]


def test_a_pattern_finds_labels_anywhere(tmp_path):
    (tmp_path / "x.fa").write_text(">ENST1|pos|x\nAC\n>ENST2|neg|y\nGT\n")
    assert read_labelled_fasta(tmp_path / "x.fa", label_pattern=r"\|(\w+)\|").label == ["pos", "neg"]


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        (
            ">a label=1\nAC\n>b\nGT\n",
            {},
            r"x.fa: record 1 \(b\): header 'b' has no label: wanted a field label=",
        ),
        (">a\nAC\n", {"label_pattern": "(z+)"}, r"wanted a match of '\(z\+\)'"),
        (">a\nAC\n", {"label_pattern": "z+"}, r"has no group"),
        (">a label=1\nAC\n", {"number_columns": ["x"]}, r"record 0 \(a\): .* has no field x="),
        (">a label=1 split=train\nAC\n>b label=1\nAC\n", {}, r"record 1 \(b\): no field split="),
        (">a label=1\nA-C\n", {}, r"record 0 \(a\): base 1 is '-'"),
        ("", {}, r"no FASTA records"),
    ],
)
def test_fasta_errors_name_the_record(tmp_path, text, settings, said):
    (tmp_path / "x.fa").write_text(text)
    with pytest.raises(LabelError, match=said):
        read_labelled_fasta(tmp_path / "x.fa", **settings)


@pytest.fixture
def genome(tmp_path):
    (tmp_path / "g.fa").write_text(">20\nAACCGGTTNNACGT\n")
    return Genome.open(tmp_path / "g.fa")


def test_bed_takes_the_strand(tmp_path, genome):
    (tmp_path / "x.bed").write_text("chr20\t0\t4\tyes\t0\t+\n20\t2\t6\tno\t0\t-\n20\t1\t3\tno\t0\t.\n")
    rows = read_bed(tmp_path / "x.bed", genome)
    assert rows.sequence == ["AACC", "CCGG", "AC"]
    assert rows.label == ["yes", "no", "no"]
    assert rows.loci.contig == ["20"] * 3
    assert rows.loci.strand == ["+", "-", "+"]


def test_a_header_names_the_columns(tmp_path, genome):
    (tmp_path / "x.bed").write_text("#chrom\tstart\tend\tstrand\tkind\tx\tsplit\n20\t4\t8\t-\tpos\t3\ttest\n")
    rows = read_bed(tmp_path / "x.bed", genome, label_column="kind", number_columns=["x"])
    assert rows.sequence == ["AACC"]
    assert (rows.label, rows.split, rows.numbers.tolist()) == (["pos"], ["test"], [[3.0]])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("20\t0\n", r"x.bed:2: .*wanted contig, start and end, separated by tabs; got 2 field"),
        ("20\t4\t4\ta\t0\t+\n", r"x.bed:2: \[4, 4\) of '20': wanted 0 <= start < end; remove the line"),
        ("20\t4\t15\ta\t0\t+\n", r"x.bed:2: \[4, 15\).*is this the genome"),
        ("20\tx\t15\ta\t0\t+\n", r"x.bed:2: start_bp = 'x': wanted an integer"),
        ("21\t4\t8\ta\t0\t+\n", r"x.bed:2: no contig '21' in .*g.fa, which has 20"),
        ("20\t4\t8\ta\t0\t?\n", r"x.bed:2: strand '\?'"),
        ("20\t4\t8\ta\n", r"x.bed:2: 4 fields, but the lines before have 6"),
        ("20\t4\t8\t\t0\t+\n", r"x.bed:2: name is missing"),
        ("20\t4\t8\t.\t0\t+\n", r"x.bed:2: name is missing"),
    ],
)
def test_bed_errors_name_the_line(tmp_path, genome, line, said):
    (tmp_path / "x.bed").write_text("20\t0\t4\tyes\t0\t+\n" + line)
    with pytest.raises(InputFileError, match=said):
        read_bed(tmp_path / "x.bed", genome)
