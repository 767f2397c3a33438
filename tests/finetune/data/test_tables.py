"""CSV, TSV and parquet: the rows that are read, and errors that name the line."""

import gzip

import pytest

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.data.tables import read_table, write_rows
from dnagpt_fast.input_files import InputFileError

ROWS = (
    "sequence,label,half_life,split,chrom,start,end,strand\n"
    "ACGTac,yes,0.5,train,chr1,10,16,-\n"
    "GGUU,no,-2,test,chr1,20,24,+\n"
)


@pytest.fixture(params=["csv", "tsv", "csv.gz", "parquet"])
def table(request, tmp_path):
    path = tmp_path / f"x.{request.param}"
    if request.param == "parquet":
        pandas = pytest.importorskip("pandas", reason="needs the extra [finetune]")
        (tmp_path / "x.csv").write_text(ROWS)
        pandas.read_csv(tmp_path / "x.csv").to_parquet(path)
    elif request.param == "csv.gz":
        path.write_bytes(gzip.compress(ROWS.encode()))
    else:
        path.write_text(ROWS.replace(",", "\t") if request.param == "tsv" else ROWS)
    return path


def test_columns(table):
    rows = read_table(table, number_columns=["half_life"])
    assert rows.sequence == ["ACGTAC", "GGTT"]
    assert rows.label == ["yes", "no"]
    assert rows.numbers.tolist() == [[0.5], [-2.0]]
    assert rows.split == ["train", "test"]
    assert rows.loci.contig == ["chr1", "chr1"]
    assert rows.loci.start_bp.tolist() == [10, 20]
    assert rows.loci.end_bp.tolist() == [16, 24]
    assert rows.loci.strand == ["-", "+"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", r"x.csv: the file is empty"),
        ("sequence,label\n", r"x.csv: no rows below the header"),
        ("seq,label\nACGT,1\n", r"x.csv:1: no column 'sequence'; the columns are seq, label"),
        ("sequence;label\nACGT;1\n", r"the columns are sequence;label; wanted commas or tabs between them"),
        ("sequence,sequence\nA,C\n", r"x.csv:1: column 'sequence' appears twice"),
        ("sequence,label\nACGT,1\nACGT\n", r"x.csv:3: 1 field\(s\), the header has 2"),
        ("sequence,label\nACGT,1\nACGT,\n", r"x.csv:3: label is missing"),
        ("sequence,label\nACGT,1\nAC!T,1\n", r"x.csv:3: base 2 is '!'"),
        ("sequence,label,x\nACGT,1,nan\n", r"x.csv:2: x = 'nan': wanted a finite number"),
        ("sequence,label,x\nACGT,1,\n", r"x.csv:2: x = '': wanted a number"),
        ("sequence,label,x,contig,start,end\nACGT,1,1,c,5,5\n", r"x.csv:2: \[5, 5\)"),
        ("sequence,label,x,contig,start,end\nACGT,1,1,c,a,5\n", r"x.csv:2: start = 'a': wanted an integer"),
        ("sequence,label,x,contig,start,end,strand\nACGT,1,1,c,1,5,*\n", r"x.csv:2: strand '\*'"),
        ('sequence,label\n"ACGT,1\n', r"x.csv:2: unexpected end of data"),
    ],
)
def test_errors_name_file_and_line(tmp_path, content, said):
    path = tmp_path / "x.csv"
    path.write_text(content)
    header = content.partition("\n")[0].split(",")
    with pytest.raises(InputFileError, match=said):
        read_table(path, number_columns=["x"] if "x" in header else [])


def test_a_line_number_counts_quoted_newlines(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('sequence,label,note\nACGT,1,"two\nlines"\nAC?T,1,-\n')
    with pytest.raises(LabelError, match=r"x.csv:4: base 2"):
        read_table(path)


def test_a_file_that_is_no_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"sequence,label\n")
    with pytest.raises(LabelError, match=r"cannot be read as parquet"):
        read_table(path)


def test_a_table_is_written_as_its_name_says(tmp_path):
    for name, parted_by in (("x.csv", ","), ("x.tsv", "\t")):
        write_rows(tmp_path / name, ["sequence", "label"], [["ACGT", "a,b"]])
        assert (tmp_path / name).read_text().splitlines()[0] == f"sequence{parted_by}label"
        assert read_table(tmp_path / name).label == ["a,b"]
    with pytest.raises(ValueError, match=r"x.xlsx: tables are written as .tsv or .csv"):
        write_rows(tmp_path / "x.xlsx", ["sequence"], [])


def test_labels_may_be_absent_for_prediction(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("sequence\nACGT\n")
    assert read_table(path, labelled=False).label is None
    with pytest.raises(LabelError, match=r"no column 'label'"):
        read_table(path)
