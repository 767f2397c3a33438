"""GTF and GFF3 as common programs write them: which lines are one transcript, and which parts of it are
unknown."""

import pytest

from dnagpt_fast.finetune.data.annotation import read_annotation
from dnagpt_fast.finetune.data.sites import annotated_sites
from dnagpt_fast.genome import Genome

LENGTH = 3000
STARTS = {("c1", 500, "+"), ("c1", 1500, "+"), ("c1", 2797, "-"), ("c2", 300, "+")}


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    """A genome with ATG on + of c1 at 500 and 1500, on + of c2 at 300, and on - of c1 at 2797."""
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    contigs = {"c1": ["C"] * LENGTH, "c2": ["C"] * LENGTH}
    for contig, start, strand in STARTS:
        contigs[contig][start : start + 3] = "ATG" if strand == "+" else "CAT"
    path.write_text("".join(f">{name}\n{''.join(bases)}\n" for name, bases in contigs.items()))
    with Genome.open(path) as opened:
        yield opened


def starts(genome, folder, *rows, data: bytes | None = None):
    """(translation starts, counts) of an annotation in rows of `contig kind start end strand phase attributes`."""
    lines = []
    for row in rows:
        if row.startswith(("#", ">")):
            lines.append(row)
            continue
        contig, kind, start, end, strand, phase, attributes = row.split(maxsplit=6)
        lines.append("\t".join([contig, "x", kind, start, end, ".", strand, phase, attributes]))
    (folder / "a").write_bytes(data or "".join(line + "\n" for line in lines).encode("latin-1"))
    sites, counts = annotated_sites(read_annotation(folder / "a"), genome, "tis")
    contig = [genome.names[i] for i in sites.contig]
    strand = ["-" if reverse else "+" for reverse in sites.reverse]
    return set(zip(contig, sites.start_bp.tolist(), strand, strict=True)), counts


GTF = 'gene_id "g"; transcript_id "t";'
FIRST, SECOND, REVERSE, OTHER = ("c1", 500, "+"), ("c1", 1500, "+"), ("c1", 2797, "-"), ("c2", 300, "+")
JOINED = {
    "transcript lines": [
        f"c1 transcript 501 800 + . {GTF}", f"c1 exon 501 600 + . {GTF}", f"c1 CDS 501 600 + 0 {GTF}",
        f"c1 exon 701 800 + . {GTF}", f"c1 CDS 701 800 + 2 {GTF}",
        f"c1 transcript 1501 1800 + . {GTF}", f"c1 exon 1501 1800 + . {GTF}", f"c1 CDS 1501 1800 + 0 {GTF}",
    ],
    "exon numbers": [
        f'c1 exon 501 600 + . {GTF} exon_number "1";', f'c1 exon 701 800 + . {GTF} exon_number "2";',
        f"c1 CDS 501 600 + 0 {GTF}", f"c1 CDS 701 800 + 2 {GTF}",
        f"c1 exon 1501 1800 + . {GTF} exon_number 1;", f"c1 CDS 1501 1800 + 0 {GTF}",
    ],
    "start codons": [
        f"c1 exon 501 600 + . {GTF}", f"c1 CDS 501 600 + 0 {GTF}", f"c1 start_codon 501 503 + 0 {GTF}",
        f"c1 exon 1501 1800 + . {GTF}", f"c1 CDS 1501 1800 + 0 {GTF}", f"c1 start_codon 1501 1503 + 0 {GTF}",
    ],
    "two products of a gene": [
        "c1 gene 501 1800 + . ID=g", "c1 CDS 501 800 + 0 ID=a;Parent=g;protein_id=P1",
        "c1 CDS 1501 1800 + 0 ID=b;Parent=g;protein_id=P2",
    ],
    "two products of a transcript": [
        "c1 mRNA 401 1800 + . ID=t", "c1 exon 401 1800 + . Parent=t", "c1 CDS 501 1600 + 0 ID=a;Parent=t",
        "c1 CDS 1501 1800 + 0 ID=b;Parent=t",
    ],
    "two mRNA lines of one ID": [
        "c1 mRNA 501 800 + . ID=t", "c1 CDS 501 800 + 0 Parent=t",
        "c1 mRNA 1501 1800 + . ID=t", "c1 CDS 1501 1800 + 0 Parent=t",
    ],
}  # fmt: skip


@pytest.mark.parametrize("rows", JOINED.values(), ids=JOINED)
def test_one_name_at_two_places(genome, tmp_path, rows):
    assert starts(genome, tmp_path, *rows)[0] == {FIRST, SECOND}


@pytest.mark.parametrize("attributes", [GTF, "Parent=t"])
def test_one_name_on_two_contigs_and_strands(genome, tmp_path, attributes):
    rows = [f"{where} CDS {span} {attributes}" for where, span in
            (("c1", "501 800 + 0"), ("c1", "2501 2800 - 0"), ("c2", "301 600 + 0"))]  # fmt: skip
    assert starts(genome, tmp_path, *rows)[0] == {FIRST, REVERSE, OTHER}


def test_one_transcript_stays_one(genome, tmp_path):
    """Coding parts with a separate ID on each line, two start codons in one exon, duplicate exons."""
    rows = [
        "c1 mRNA 501 1800 + . ID=t",
        "c1 CDS 501 800 + 0 ID=t.1;Parent=t",
        "c1 CDS 1501 1800 + 0 ID=t.2;Parent=t",
    ]
    assert starts(genome, tmp_path, *rows)[0] == {FIRST}
    rows = [f"c1 exon 501 1800 + . {GTF}"] * 2 + [f"c1 CDS 501 1800 + 0 {GTF}"]
    rows += [f"c1 start_codon 501 503 + 0 {GTF}", f"c1 start_codon 1501 1503 + 0 {GTF}"]
    assert starts(genome, tmp_path, *rows)[0] == {FIRST}


@pytest.mark.parametrize(
    ("row", "known"),
    [
        (f'c1 CDS 1501 1800 + 0 {GTF} tag "basic"; tag "cds_start_NF";', False),
        (f'c1 CDS 1501 1800 + 0 {GTF} tag "mRNA_start_NF"; tag "basic";', False),
        (f'c1 CDS 1501 1800 + 0 {GTF} tag "cds_end_NF"; tag "mRNA_end_NF";', True),
        (f"c1 CDS 1501 1800 + 1 {GTF}", False),
        (f"c1 CDS 2501 2800 - 2 {GTF}", False),
        ("c1 CDS 1501 1800 + 0 Parent=t;tag=basic,cds_start_NF", False),
        ("c1 CDS 1501 1800 + 0 Parent=t;partial=true", False),
        ("c1 CDS 1501 1800 + 0 Parent=t;partial=true;start_range=.,1501", False),
        ("c1 CDS 1501 1800 + 0 Parent=t;partial=true;end_range=1800,.", True),
        ("c1 CDS 2501 2800 - 0 Parent=t;partial=true;end_range=2800,.", False),
        ("c1 CDS 2501 2800 - 0 Parent=t;partial=true;start_range=.,2501", True),
        ("c1 CDS 1501 1800 + 0 ID=1_1;partial=10", False),
        ("c1 CDS 1501 1800 + 0 ID=1_1;partial=01", True),
        ("c1 CDS 2501 2800 - 0 ID=1_1;partial=01", False),
        ("c1 CDS 2501 2800 - 0 ID=1_1;partial=00", True),
    ],
)
def test_what_limits_a_start(genome, tmp_path, row, known):
    other = "c1 CDS 501 800 + 0 " + ("Parent=o" if "=" in row else 'gene_id "o"; transcript_id "o";')
    found, counts = starts(genome, tmp_path, other, row)
    assert found == ({FIRST, SECOND if " + " in row else REVERSE} if known else {FIRST})
    assert counts.get("start of the coding part unknown", 0) == (not known)


GENE = ["c1 gene 501 800 + . ID=gene-A", "c1 CDS 501 800 + 0 ID=cds-A;Parent=gene-A"]
ODD = {
    "slippage": ["c1 CDS 1501 1650 + 0 ID=b;Parent=h;exception=ribosomal slippage",
                 "c1 CDS 1650 1800 + 0 ID=b;Parent=h;exception=ribosomal slippage"],
    "slippage forward": ["c1 CDS 1501 1650 + 0 ID=b;Parent=h;exception=ribosomal slippage",
                         "c1 CDS 1652 1800 + 0 ID=b;Parent=h;exception=ribosomal slippage"],
    "a region from 0": ["c1 region 0 3000 + . ID=r", "c1 CDS 1501 1800 + 0 Parent=h"],
    "a gene from 0": ["c1 gene 0 3000 + . ID=h", "c1 CDS 1501 1800 + 0 Parent=h"],
    "a feature with a huge end": [f"c1 match 5 {10**30} + . ID=m", "c1 CDS 1501 1800 + 0 Parent=h"],
    "exon without parent": ["c1 exon 1 100 + . ID=e", "c1 CDS 1501 1800 + 0 Parent=h"],
    "Latin-1": ["c1 CDS 1501 1800 + 0 Parent=h;Note=caf\xe9", "c1 match 1 9 + . Note=\xb5"],
    "blanks after the semicolon": ["c1 CDS 1501 1800 + 0 ID=b; Parent=h; "],
    "FASTA without directive": ["c1 CDS 1501 1800 + 0 Parent=h", ">c1", "ACGT ACGT ACGT ACGT ACGT ACGT ACGT"],
    "percent in names": ["c%31 CDS 1501 1800 + 0 ID=b%2C1;Parent=h%3B1"],
    "no parent": ["c1 CDS 1501 1800 + 0 ID=P_2;locus_tag=P_2"],
    "trans-splicing": ["c1 CDS 1501 1800 + 0 Parent=h", "c1 CDS 2501 2800 - 0 ID=s;Parent=s;exception=trans-splicing",
                       "c2 CDS 301 600 + 0 ID=s;Parent=s;exception=trans-splicing"],
}  # fmt: skip


@pytest.mark.parametrize("rows", ODD.values(), ids=ODD)
def test_one_odd_record_does_not_refuse_the_file(genome, tmp_path, rows):
    assert starts(genome, tmp_path, "##gff-version 3", *GENE, *rows)[0] == {FIRST, SECOND}


def test_what_is_left_out_is_counted(genome, tmp_path, caplog):
    starts(
        genome,
        tmp_path,
        *GENE,
        *ODD["trans-splicing"],
        *ODD["exon without parent"],
        "c1 exon 5 9 . . Parent=x",
    )
    assert "a: left out: 1 exon lines without Parent (first: " in caplog.text
    assert "2 parts of trans-spliced transcripts (first: " in caplog.text
    assert "1 transcripts without a strand (first: " in caplog.text


def test_a_slippage_is_no_intron(genome, tmp_path):
    for name in ("slippage", "slippage forward"):
        starts(genome, tmp_path, *ODD[name])
        (found,) = read_annotation(tmp_path / "a")
        assert found.exons.tolist() == [[1500, 1800]]


AUGUSTUS = 'transcript_id "g1.t1"; gene_id "g1";'
DIALECTS = {
    "AUGUSTUS": ["c1 gene 501 800 + . g1", "c1 transcript 501 800 + . g1.t1", f"c1 CDS 501 600 + 0 {AUGUSTUS}",
                 f"c1 exon 501 600 + . {AUGUSTUS}"],
    "no quotes": ["c1 exon 501 800 + . gene_id g1; transcript_id g1.t1;",
                  "c1 CDS 501 800 + 0 gene_id g1; transcript_id g1.t1"],
    "blanks": ['c1 CDS 501 800 + 0 gene_id  "g 1" ;  transcript_id "t 1" ; note "a; b = c";'],
    "GeneMark": ['c1 CDS 501 600 + 0 gene_id "1_g"; transcript_id "1_t"; cds_type "Initial"; count "1_2";'],
    "Prodigal": ["# Sequence Data: seqnum=1", "c1 CDS 501 800 + 0 ID=1_1;partial=00;start_type=ATG;rbs_motif=None"],
    "only parts below a gene": ["c1 gene 501 800 + . ID=g", "c1 CDS 501 800 + 0 Parent=g",
                                "c1 three_prime_UTR 801 900 + . Parent=g"],
}  # fmt: skip


@pytest.mark.parametrize("rows", DIALECTS.values(), ids=DIALECTS)
def test_dialects(genome, tmp_path, rows):
    assert starts(genome, tmp_path, *rows)[0] == {FIRST}


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("ends", [b"\r\n", b"\r", b"\n\n"])
def test_marks_and_line_ends(genome, tmp_path, mark, ends):
    data = mark + ends.join([b"##gff-version 3", b"c1\tx\tCDS\t501\t800\t.\t+\t0\tParent=t\t", b""])
    assert starts(genome, tmp_path, data=data)[0] == {FIRST}


ROUND = "c2 region 1 3000 + . ID=c2;Is_circular=true"


def test_a_gene_over_the_origin(genome, tmp_path):
    """Given by an end past the contig's length, or in two parts; its start is kept if it is on the contig."""
    for rows in (
        ["c2 CDS 2901 3150 + 0 ID=o;Parent=p"],
        ["c2 CDS 2901 3000 + 0 ID=o", "c2 CDS 1 150 + 0 ID=o"],
    ):
        found, _ = starts(genome, tmp_path, ROUND, "c2 CDS 301 600 + 0 Parent=g", *rows)
        assert found == {OTHER}
        over = next(t for t in read_annotation(tmp_path / "a") if t.name in ("o", "p"))
        assert over.coding_bp == (2900, 3150)
    with pytest.raises(ValueError, match="not the same assembly"):
        starts(genome, tmp_path, "c2 CDS 2901 3150 + 0 Parent=p")
    assert starts(genome, tmp_path, ROUND, "c2 CDS 3301 3600 + 0 Parent=p")[0] == {OTHER}
