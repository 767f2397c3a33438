"""BIO tags: every base and k-mer against a simple second implementation; errors name file and line."""

import random

import numpy as np
import pytest

from dnagpt_fast.evaluation.tag_scores import tag_names
from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.data.token_tags import Feature, TaggedWindows, read_features
from dnagpt_fast.genome import Genome
from dnagpt_fast.input_files import InputFileError
from dnagpt_fast.model.tokenizer import KmerTokenizer

GFF = """##gff-version 3
chr1\tx\texon\t3\t6\t.\t+\t.\tID=a
chr1\tx\texon\t5\t9\t.\t-\t.\tID=b
chr1\tx\tgene\t1\t40\t.\t+\t.\tID=c
chr1\tx\tintron\t9\t12\t.\t+\t.\tID=d
##FASTA
>chr1
ACGT
"""
BED = "#contig\nchr1\t2\t6\texon\nchr1\t4\t9\texon\nchr1\t8\t12\tintron\nchr1\t0\t40\tgene\n"


@pytest.fixture
def genome(tmp_path):
    bases = "".join(random.Random(0).choices("ACGT", k=100))
    (tmp_path / "g.fa").write_text(f">chr1\n{bases[:50]}\n>chr2\nACG\n>chr3\n{bases[50:]}\n")
    with Genome.open(tmp_path / "g.fa") as genome:
        yield genome


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_both_forms_say_the_same(tmp_path):
    found = [read_features(write(tmp_path, name, text)) for name, text in (("a.gff3", GFF), ("a.bed", BED))]
    plain = [sorted((f.contig, f.start_bp, f.end_bp, f.kind) for f in features) for features in found]
    assert (
        plain[0]
        == plain[1]
        == sorted(
            [
                ("chr1", 2, 6, "exon"),
                ("chr1", 4, 9, "exon"),
                ("chr1", 0, 40, "gene"),
                ("chr1", 8, 12, "intron"),
            ]
        )
    )


def test_bases_by_hand(tmp_path, genome):
    features = read_features(write(tmp_path, "a.gff3", GFF))
    rows = TaggedWindows(genome, features, ["exon", "intron"], KmerTokenizer(3), kmers=5, per_base=True)
    assert rows.tags == tag_names(["exon", "intron"]) == ["O", "B-exon", "I-exon", "B-intron", "I-intron"]
    first = np.array(rows[0]["labels"])
    assert (first[0] == -100).all()
    # the two exons are merged; the first base of the intron belongs to the exon, the first named kind
    assert first[1:].ravel().tolist() == [0, 0, 1, 2, 2, 2, 2, 2, 2, 4, 4, 4, 0, 0, 0]
    kmers = TaggedWindows(genome, features, ["exon", "intron"], KmerTokenizer(3), kmers=5)
    assert kmers[0]["labels"] == [-100, 1, 2, 2, 4, 0]
    assert rows.too_short == 1


def test_every_base_is_tagged_once(genome):
    """Random features against a base-by-base reading; the last window of a contig reaches back and ignores what the one
    before it has."""
    rng = random.Random(1)
    features = []
    for contig, length in (("chr1", 50), ("chr3", 50)):
        for _ in range(6):
            start = rng.randrange(length - 1)
            features.append(
                Feature(contig, start, rng.randrange(start + 1, length + 1), rng.choice("xy"), "here")
            )
    rows = TaggedWindows(genome, features, ["x", "y"], KmerTokenizer(3), kmers=5, per_base=True)
    assert len(rows) == 8
    assert {len(row["input_ids"]) for row in rows} == {6}
    for number, contig in enumerate(("chr1", "chr3")):
        covered = {kind: np.zeros(50, int) for kind in "xy"}
        for f in features:
            if f.contig == contig:
                covered[f.kind][f.start_bp : f.end_bp] = 1
        wanted = np.where(covered["x"] > 0, 2, np.where(covered["y"] > 0, 4, 0))
        found = np.full(50, -1)
        for i, start in enumerate((0, 15, 30, 35)):
            labels = np.array(rows[4 * number + i]["labels"])[1:].ravel()
            place = np.arange(start, start + 15)
            counted = labels != -100
            assert (found[place[counted]] == -1).all()
            found[place[counted]] = labels[counted]
        assert (found >= 0).all()
        assert np.where(found % 2 == 1, found + 1, found).tolist() == wanted.tolist()
        starts = {f.start_bp for f in features if f.contig == contig}
        assert set(np.flatnonzero(found % 2 == 1)) <= starts


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.bed", "chr1\t1\t5\n", r"a\.bed:1: no kind in its fourth"),
        ("a.bed", "chr1\t5\t5\tx\n", r"a\.bed:1: .*wanted 0 <= start < end"),
        ("a.gff3", "chr1\tx\texon\tone\t6\t.\t+\t.\tID=a\n", r"a\.gff3:1: start = 'one': wanted an integer"),
        ("a.gff3", "##gff-version 3\n", "no features"),
    ],
)
def test_refusals_of_files(tmp_path, name, text, message):
    with pytest.raises(InputFileError, match=message):
        read_features(write(tmp_path, name, text))


def test_refusals_of_features(tmp_path, genome):
    tokenizer = KmerTokenizer(3)
    features = [Feature("chr1", 0, 60, "x", "file:7")]
    with pytest.raises(LabelError, match="file:7: ends at 60: chr1 has 50"):
        TaggedWindows(genome, features, ["x"], tokenizer)
    with pytest.raises(LabelError, match="no feature is one of y; there are x"):
        TaggedWindows(genome, features, ["y"], tokenizer)
    with pytest.raises(ValueError, match="without duplicates"):
        TaggedWindows(genome, features, ["x", "x"], tokenizer)
