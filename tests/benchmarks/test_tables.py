"""The tables of measured figures in README.md and benchmarks/README.md are those of the rows in benchmarks/results."""

import json

import pytest

from benchmarks import cpu_rows, tables

MARKS = "a\n<!-- cpu tables: python -m benchmarks.tables -->\nold\n<!-- end of cpu tables -->\nb\n"


@pytest.mark.parametrize("path", tables.PAGES, ids=lambda path: path.parent.name)
def test_a_page_has_the_table_of_the_rows(path):
    page, name = path.read_text(), tables.PAGES[path]
    assert page == tables.replaced(page, name, tables.MAKERS[name]()), (
        "remake it: python -m benchmarks.tables"
    )


def test_every_row_names_its_machine_and_instruction_set():
    assert tables.files()
    for isa, path in tables.files().items():
        for row in tables.rows_of(path).values():
            assert row["cpu_isa"] == isa
            assert row["machine"]
            assert row["date"]
            assert row["threads"] >= 1


def test_a_changed_figure_changes_the_tables(tmp_path, monkeypatch):
    (name, path), *_ = tables.files().items()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["op"] == "gc_count":
            row["rate"][f"{name} whole"] = 1234.0
    (tmp_path / path.name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert "1,234 Gbp/s whole" in tables.cpu_tables()
    assert "1,234 Gbp/s" in tables.cpu_summary()


def test_rows_of_a_new_run_replace_those_of_the_same_op(tmp_path):
    path = tmp_path / "cpu_avx2.jsonl"
    cpu_rows.merge(path, [{"op": "a", "n": 1}, {"op": "b", "n": 1}])
    cpu_rows.merge(path, [{"op": "c", "n": 2}, {"op": "a", "n": 2}])
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == [{"op": "a", "n": 2}, {"op": "b", "n": 1}, {"op": "c", "n": 2}]


def test_the_text_between_the_marks_is_replaced_and_pages_without_them_are_refused():
    page = tables.replaced(MARKS, "cpu tables", "new")
    assert page == MARKS.replace("old", "\nnew\n")
    assert tables.replaced(page, "cpu tables", "new") == page
    with pytest.raises(ValueError, match="lacks the marks"):
        tables.replaced("a\n", "cpu tables", "new")


def test_the_run_of_all_rows_has_every_script_that_measures_the_cpu_core():
    core = {
        "kmer_tokenize",
        "gc_count",
        "sampler",
        "text_encode",
        "calls",
        "call_overhead",
        "fasta_pack",
        "variants",
    }
    assert {f"bench_{name}" for name in core} <= set(cpu_rows.SCRIPTS)
    for command in cpu_rows.SCRIPTS.values():
        named = [word for word in command if "bench_" in word]
        assert (cpu_rows.ROOT / (named[0].removesuffix(".py").replace(".", "/") + ".py")).is_file()
