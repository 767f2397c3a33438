"""`dnagpt-fast make-task`: the table that it writes, and its errors."""

import errno
import json

import pytest

from dnagpt_fast.cli import main
from dnagpt_fast.finetune.data import sites
from tests.finetune.data.genomes import two_gene_genome


def run(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return exit_.value.code


def test_it_writes_the_table_and_says_what_is_in_it(tmp_path, capsys):
    _, table = two_gene_genome(tmp_path)
    paths = "--genome", tmp_path / "g.fa", "--annotation", table, "-o", tmp_path / "t.tsv"
    assert not run("make-task", "tis", *paths, "--window-bp", 60, "--negatives", 20, "--block-bp", 500)
    summary = json.loads(capsys.readouterr().out)
    lines = (tmp_path / "t.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["sequence", "label", "contig", "start_bp", "end_bp", "strand", "split"]
    assert len(lines) - 1 == summary["rows"]


def test_table_and_summary_are_both_new_or_both_old(tmp_path, monkeypatch, capsys):
    _, table = two_gene_genome(tmp_path)
    made = tmp_path / "out"
    made.mkdir()
    (made / "t.tsv").write_text("old")
    (made / "t.json").write_text("old")

    def no_space(path, _):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(sites, "write_json", no_space)
    paths = "--genome", tmp_path / "g.fa", "--annotation", table, "-o", made / "t.tsv"
    asked = ("make-task", "tis", *paths, "--window-bp", 60, "--negatives", 20, "--block-bp", 500)
    assert run(*asked) == 1
    assert capsys.readouterr().err.strip().endswith(f"No space left on device: '{made / 't.json'}'")
    assert {path.name: path.read_text() for path in made.iterdir()} == {"t.tsv": "old", "t.json": "old"}
    monkeypatch.undo()
    assert not run(*asked)
    assert (made / "t.tsv").read_text().startswith("sequence\t")
    assert json.loads((made / "t.json").read_text())["rows"]


def test_bad_input_is_one_line(tmp_path, capsys):
    _, table = two_gene_genome(tmp_path)
    assert (
        run("make-task", "tiz", "--genome", tmp_path / "g.fa", "--annotation", table, "-o", tmp_path / "t")
        == 1
    )
    assert capsys.readouterr().err == (
        "dnagpt-fast: error: task 'tiz': wanted one of tis, pas, splice, splice-donor, splice-acceptor\n"
    )
    assert not (tmp_path / "t").exists()
