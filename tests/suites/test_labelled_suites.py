"""The suites of labelled intervals and tables: how rows become parts, and what is refused before any work."""

import numpy as np
import pytest

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.suites import genomic_benchmarks, poly_a
from dnagpt_fast.suites.task import Source
from tests.suites.benchmark_data import bases, labelled, write_csv

RNG = np.random.default_rng(3)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "genome.fa").write_text(f">chr1\n{bases(RNG, 9_000)}\n>chr2\n{bases(RNG, 3_000)}\n")
    return Source(tmp_path / "data", tmp_path / "genome.fa")


def bed(source, rows, header="#contig\tstart_bp\tend_bp\tname\tscore\tstrand\tsplit"):
    source.data.mkdir()
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    (source.data / "set.tsv").write_text("\n".join(lines) + "\n")


def intervals(count=60):
    return [
        ("1" if i % 3 else "2", 40 * i, 40 * i + 100, ("no", "yes")[i % 2], 0, "+-"[i % 2], ("train", "test")[i > 40])
        for i in range(count)
    ]  # fmt: skip


def test_intervals_with_labels(source, monkeypatch):
    monkeypatch.setattr(genomic_benchmarks, "BLOCK_BP", 500)
    bed(source, intervals())
    (task,) = genomic_benchmarks.tasks(source)
    assert (task.name, task.measure, task.rows) == ("set", "accuracy", 19)
    assert task.facts["classes"] == ["no", "yes"]
    assert task.facts["train"]["rows"] + task.facts["dev"]["rows"] == 41
    # a block is in one part only
    blocks = {
        part: {(c, s // 500) for c, s in zip(rows.loci.contig, rows.loci.start_bp.tolist(), strict=True)}
        for part, rows in task.examples.items()
    }
    assert not blocks["train"] & blocks["dev"]
    assert len(set(task.clusters.tolist())) == len(blocks["test"])
    assert any("test windows overlap a window of" in said for said in task.findings)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("1", 0, 50, "a", 0, "+", "half")], r"set.tsv:2: split 'half': wanted train, dev or test"),
        ([("1", 0, 50, "a", 0, "+", "train")], r"set.tsv: no row of the split 'test'"),
        ([("1", 0, 99_000, "a", 0, "+", "train")], r"set.tsv:2: \[0, 99000\) of '1'"),
        ([*intervals(), ("1", 5, 50, "maybe", 0, "+", "test")], r"set.tsv:62: label 'maybe' is not one of"),
    ],
)
def test_bad_intervals(source, rows, message):
    bed(source, rows)
    with pytest.raises(ValueError, match=message):
        list(genomic_benchmarks.tasks(source))


def test_intervals_need_a_split_and_a_genome(source):
    bed(source, [("1", 0, 50, "a")], "#contig\tstart_bp\tend_bp\tname")
    with pytest.raises(LabelError, match=r"set.tsv: no column 'split'"):
        list(genomic_benchmarks.tasks(source))
    with pytest.raises(LabelError, match="give --genome"):
        list(genomic_benchmarks.tasks(Source(source.data)))


def test_tables_are_split_with_copies_together(tmp_path):
    rows = labelled(RNG, 100)
    write_csv(tmp_path / "data" / "mouse.tsv", [*rows, *rows])
    (task,) = poly_a.tasks(Source(tmp_path / "data"))
    sizes = {part: len(of) for part, of in task.examples.items()}
    assert sizes == {"train": 120, "dev": 30, "test": 50}
    assert task.facts["leaks"] == {
        "test_in_train": {"identical": 0, "near": 0},
        "test_in_dev": {"identical": 0, "near": 0},
    }
    again = next(iter(poly_a.tasks(Source(tmp_path / "data"))))
    other = next(iter(poly_a.tasks(Source(tmp_path / "data", seed=1))))
    assert again.examples["test"].where == task.examples["test"].where != other.examples["test"].where


def test_a_length_that_gives_the_label_away_is_seen(tmp_path):
    rows = [(bases(RNG, 40 + 30 * (i % 2) + int(RNG.integers(20))), str(i % 2)) for i in range(200)]
    write_csv(tmp_path / "data" / "mouse.tsv", rows)
    (task,) = poly_a.tasks(Source(tmp_path / "data"))
    (values,) = task.baselines["length"]().values
    assert task.scorer(values)(np.arange(task.rows))["accuracy"] == 1.0
    assert "positional logistic regression" not in task.baselines


def test_no_file_for_a_suite(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(LabelError, match=r"no file with the ending \.tsv or"):
        list(poly_a.tasks(Source(tmp_path / "data")))
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        list(poly_a.tasks(Source(tmp_path / "other")))
