"""refGene, GTF and GFF3 give the same transcripts."""

import pytest

from dnagpt_fast.finetune.data.annotation import read_annotation
from dnagpt_fast.input_files import InputFileError

REFGENE = "585\tT1\tchr1\t-\t99\t400\t149\t350\t2\t99,299,\t200,400,\t0\tG1\tincmpl\tcmpl\t0,0,\n"
GTF = "".join(
    f'chr1\tx\t{kind}\t{start}\t{end}\t.\t-\t.\tgene_id "G1"; transcript_id "T1";\n'
    for kind, start, end in (("exon", 300, 400), ("CDS", 300, 350), ("exon", 100, 200), ("CDS", 150, 200))
)
GFF = (
    "##gff-version 3\nchr1\tx\tgene\t100\t400\t.\t-\t.\tID=g;Name=G1\n"
    "chr1\tx\tmRNA\t100\t400\t.\t-\t.\tID=T1;Parent=g\n"
    + "".join(
        f"chr1\tx\t{kind}\t{start}\t{end}\t.\t-\t.\tParent=T1\n"
        for kind, start, end in (("exon", 300, 400), ("CDS", 300, 350), ("exon", 100, 200), ("CDS", 150, 200))
    )
)


@pytest.mark.parametrize(
    "text", [REFGENE, REFGENE.split("\t", 1)[1], GTF, GFF], ids=["bin", "refGene", "gtf", "gff"]
)
def test_one_transcript_in_every_format(tmp_path, text):
    (tmp_path / "a").write_text(text)
    (found,) = read_annotation(tmp_path / "a")
    assert (found.name, found.gene, found.contig, found.strand) == ("T1", "G1", "chr1", "-")
    assert found.exons.tolist() == [[99, 200], [299, 400]]
    assert found.coding_bp == (149, 350)
    assert found.length_bp == 202
    assert found.start_complete


def test_the_start_of_a_reverse_transcript_is_its_right_end(tmp_path):
    (tmp_path / "a").write_text(REFGENE.replace("incmpl\tcmpl", "cmpl\tincmpl"))
    assert not read_annotation(tmp_path / "a")[0].start_complete


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"a: no annotation in it"),
        ("a\tb\n", r"a:1: 2 tab-separated fields: neither"),
        (REFGENE + "585\tT2\tchr1\n", r"a:2: no refGene row"),
        (REFGENE + REFGENE.replace("\t2\t", "\t3\t"), r"a:2: 2 exon starts, 2 ends, exonCount 3"),
        (REFGENE + REFGENE.replace("\t149\t", "\tx\t"), r"a:2: cdsStart = 'x': wanted an integer"),
        (REFGENE + REFGENE.replace("99,299,", "99,199,"), r"a:2: exons .*without overlaps"),
        (GTF + GTF.replace('transcript_id "T1"', 'x "T1"'), r"a:5: a exon line without transcript_id"),
        (GTF.replace("\t300\t400\t", "\t0\t400\t"), r"a:1: 0..400: wanted 1 <= start"),
        (REFGENE + REFGENE.replace("\t149\t", "\t49\t"), r"a:2: coding part \(49, 350\): wanted it inside"),
        (
            REFGENE + REFGENE.replace("99,299,", f"{10**25},299,"),
            r"a:2: exonStarts = '10+': wanted an integer",
        ),
        (GFF + GFF.splitlines()[-1].replace("\t150\t", "\t1_5\t"), r"a:8: start = '1_5': wanted an integer"),
        (GFF.replace("\t200\t", f"\t{10**12}\t"), r"a:6: end = 1,000,000,000,000: wanted .*less than"),
    ],
)
def test_errors_name_the_line(tmp_path, text, said):
    (tmp_path / "a").write_text(text)
    with pytest.raises(InputFileError, match=said):
        read_annotation(tmp_path / "a")
