"""The readers of all kinds of files, plain and compressed, give the same rows."""

import gzip

import pytest

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.data.settings import LabelledDataSettings
from dnagpt_fast.finetune.data.sources import kind_of, read_examples

TABLE = "sequence\tlabel\nAACC\tyes\nCCGG\tno\n"
FILES = {
    "x.tsv": TABLE,
    "x.csv": TABLE.replace("\t", ","),
    "x.txt": TABLE,
    "x.fa": ">a label=yes\nAACC\n>b label=no\nCCGG\n",
    "x.bed": "20\t0\t4\tyes\t0\t+\n20\t2\t6\tno\t0\t-\n",
    "named.bed": "#contig\tstart\tend\tlabel\tstrand\n20\t0\t4\tyes\t+\n20\t2\t6\tno\t-\n",
}


@pytest.mark.parametrize(
    ("name", "compressed"), [*((name, gz) for name in FILES for gz in (False, True)), ("x.parquet", False)]
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name, compressed):
    (tmp_path / "g.fa").write_text(">20\nAACCGGTTNNACGT\n")
    path = tmp_path / name
    if name == "x.parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        rows = [
            dict(zip(("sequence", "label"), row.split("\t"), strict=True)) for row in TABLE.split("\n")[1:3]
        ]
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    elif compressed:
        path = tmp_path / f"{name}.gz"
        path.write_bytes(gzip.compress(FILES[name].encode()))
    else:
        path.write_text(FILES[name])
    found = read_examples(LabelledDataSettings(path=str(path), genome=str(tmp_path / "g.fa")))
    assert (found.sequence, found.label) == (["AACC", "CCGG"], ["yes", "no"])


def test_files_without_a_reader(tmp_path):
    with pytest.raises(LabelError, match=r"x.2bit: unknown kind of file \(.2bit\): wanted .csv"):
        kind_of(tmp_path / "x.2bit")
    with pytest.raises(FileNotFoundError, match=r"no file .*x.csv"):
        read_examples(LabelledDataSettings(path=str(tmp_path / "x.csv")))
    (tmp_path / "x.bed").write_text(FILES["x.bed"])
    with pytest.raises(LabelError, match=r"x.bed: intervals need their genome: set data.genome"):
        read_examples(LabelledDataSettings(path=str(tmp_path / "x.bed")))
    (tmp_path / "x.vcf").write_text("")
    with pytest.raises(LabelError, match=r"x.vcf: haplotypes have no labels"):
        read_examples(LabelledDataSettings(path=str(tmp_path / "x.vcf")))
