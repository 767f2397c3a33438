"""BED, GTF and GFF3 through every reader of intervals: the same rules, the same bases, the same refusals."""

import gzip

import pytest

from dnagpt_fast.finetune.data.sequence_files import read_bed
from dnagpt_fast.finetune.data.token_tags import TaggedWindows, read_features
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.interval_files import inside, interval_lines
from dnagpt_fast.genome.places import read_places
from dnagpt_fast.genome.selection import places_of
from dnagpt_fast.input_files import InputFileError
from dnagpt_fast.model.tokenizer import KmerTokenizer

BED = "20\t2\t8\ta\t0\t+\nchr20\t10\t16\tb\t0\t-\nCHR20\t18\t20\tc\t0\t.\ntrack\t0\t4\td\t0\t+\n"
CIRCULAR = """\
##gff-version 3
track\tx\tregion\t1\t8\t.\t+\t.\tID=r;Is_circular=true
track\tx\texon\t7\t10\t.\t-\t.\tID=a
"""


@pytest.fixture
def genome(tmp_path):
    (tmp_path / "g.fa").write_text(">20\nAACCGGTTACGTACGTACGTACGT\n>track\nAACCGGTT\n")
    with Genome.open(tmp_path / "g.fa") as opened:
        yield opened


def of_every_reader(genome, path):
    """(contig, start, end) of each interval, as each of the four readers has it."""
    rows = read_bed(path, genome).loci
    return [
        [(p.contig, p.start_bp, p.end_bp) for p in places_of(genome, bed=path)],
        [(genome.names[p.contig], p.start_bp, p.end_bp) for p in read_places(genome, str(path))],
        list(zip(rows.contig, rows.start_bp.tolist(), rows.end_bp.tolist(), strict=True)),
        [(genome.names[genome.contigs.find(f.contig)], f.start_bp, f.end_bp) for f in read_features(path)],
    ]


def dialects():
    yield "x.bed", BED.encode()
    yield "x.BED.GZ", gzip.compress(BED.encode())
    yield "x.bed", gzip.compress(BED.encode())
    yield "x.bed.gz", BED.encode()
    yield "marked.bed", b"\xef\xbb\xbf" + BED.encode()
    yield "utf16.bed", BED.encode("utf-16")
    yield "crlf.bed", BED.replace("\n", "\r\n").encode()
    yield "mac.bed", BED.replace("\n", "\r").encode()
    yield "blanks.bed", BED.replace("\t", "  ").encode()
    yield "empty_lines.bed", ("\n \n" + BED.replace("\n", "\n\t\t\n\n")).encode()
    yield "browser.bed", ('browser position 20:1-9\ntrack name="track"\n# made by hand\n' + BED).encode()
    yield "header.bed", ("chrom\tchromStart\tchromEnd\tname\tscore\tstrand\n" + BED).encode()
    yield "latin1.bed", ("# d'apr\xe8s\n" + BED).encode("latin1")
    yield "no_end.bed", BED.rstrip("\n").encode()


@pytest.mark.parametrize(("name", "data"), list(dialects()))
def test_every_reader_reads_every_dialect(genome, tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    wanted = [("20", 2, 8), ("20", 10, 16), ("20", 18, 20), ("track", 0, 4)]
    assert of_every_reader(genome, tmp_path / name) == [wanted] * 4


def test_a_header_moves_the_strand_for_every_reader(genome, tmp_path):
    """`score --bed` read the strand from the sixth column and ignored the header."""
    path = tmp_path / "x.bed"
    path.write_text("#chrom\tstart\tend\tstrand\tlabel\n20\t2\t8\t-\tyes\n")
    assert [p.strand for p in places_of(genome, bed=path)] == ["-"]
    assert read_bed(path, genome).sequence == ["AACCGG"]


def test_a_comment_of_as_many_words_is_no_header(genome, tmp_path):
    """`# six words of prose` took the strand from its column."""
    path = tmp_path / "x.bed"
    path.write_text("# made by hand on Tuesday\n20\t2\t8\tyes\t0\t-\n")
    assert read_bed(path, genome).loci.strand == ["-"]
    path.write_text("#chrom start end label strand\n20 2 8 yes -\n")
    assert read_bed(path, genome).loci.strand == ["-"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("20\t0", "wanted contig, start and end, separated by tabs; got 2"),
        ("20\t5\t5\tx\t0\t+", "wanted 0 <= start < end"),
        ("20\t-1\t5\tx\t0\t+", "wanted 0 <= start < end"),
        ("20\t1_0\t15\tx\t0\t+", "start_bp = '1_0': wanted an integer"),
        ("20\t1\t٣\tx\t0\t+", "end_bp = '٣': wanted an integer"),
        ("20\t1\t5.0\tx\t0\t+", "end_bp = '5.0': wanted an integer"),
        ("20\t1\t1e1\tx\t0\t+", "end_bp = '1e1': wanted an integer"),
        (f"20\t1\t{'9' * 30}\tx\t0\t+", "at most 18 digits"),
        ("20\t1\t25\tx\t0\t+", "wanted 0 <= start < end <= 24|has 24 bases"),
        ("21\t1\t5\tx\t0\t+", "no contig '21'"),
    ],
)
def test_every_reader_refuses_the_same(genome, tmp_path, line, said):
    path = tmp_path / "x.bed"
    path.write_text("20\t0\t4\ty\t0\t+\n" + line + "\n", encoding="utf-8")

    def tagged():
        return TaggedWindows(genome, read_features(path), ["x", "y"], KmerTokenizer(2), kmers=2)

    for read in (
        lambda: places_of(genome, bed=path),
        lambda: read_places(genome, str(path)),
        lambda: read_bed(path, genome),
        tagged,
    ):
        with pytest.raises(InputFileError, match=said) as caught:
            read()
        assert "x.bed:2: " in str(caught.value)


def test_intervals_over_the_origin_are_two_pieces(genome, tmp_path):
    path = tmp_path / "x.gff3"
    path.write_text(CIRCULAR)
    found = read_places(genome, str(path), feature="exon")
    assert [(p.contig, p.start_bp, p.end_bp) for p in found] == [(1, 6, 8), (1, 0, 2)]
    rows = TaggedWindows(genome, read_features(path), ["exon"], KmerTokenizer(2), kmers=4, per_base=True)
    assert rows[3]["labels"][1:] == [[1, 2], [0, 0], [0, 0], [1, 2]]
    path.write_text(CIRCULAR.replace(";Is_circular=true", ""))
    with pytest.raises(InputFileError, match=r"x.gff3:3: \[6, 10\) of 'track'"):
        read_places(genome, str(path), feature="exon")
    assert inside(0, 8, 8, False) == [(0, 8)]
    assert inside(6, 15, 8, True) == []  # more than once around


def test_annotation_is_recognised_by_content(genome, tmp_path):
    path = tmp_path / "x.bed"  # a name that says otherwise
    path.write_text("chr20\tx\texon\t3\t8\t.\t+\t.\tID=a\n>20\nACGT\n")
    (line,) = interval_lines(path)
    assert (line.is_annotation, line.contig, line.span_bp()) == (True, "chr20", (2, 8))
    path.write_text("chr%2020\tx\texon\t3\t8\t.\t+\t.\tID=a\n")
    assert [line.contig for line in interval_lines(path)] == ["chr 20"]
    path.write_text("HLA%20A\tx\texon\t3\t8\t.\t+\t.\tgene_id a\n")  # GTF has no such escapes
    assert [line.contig for line in interval_lines(path)] == ["HLA%20A"]
    path.write_text("20\tx\tregion\t0\t24\t.\t+\t.\tID=r\n20\tx\texon\t3\t8\t.\t?\t.\tID=a\n")
    assert len(read_places(genome, str(path), feature="exon")) == 1  # the region is of no interest


def test_names_that_are_no_text_are_refused_where_they_are_written(genome, tmp_path):
    path = tmp_path / "x.bed"
    path.write_bytes(b"20\t2\t8\tcaf\xe9\n")
    with pytest.raises(InputFileError, match=r"x.bed:1: name b'caf\\xe9' is no UTF-8"):
        places_of(genome, bed=path)
