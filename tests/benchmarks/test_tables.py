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


def test_lines_of_variants_start_up_and_whole_jobs():
    rows = {
        "variants m": {
            "model": "m", "context_bp": 384, "threads": 2, "naive variants/s": 1.0, "variants/s, alone": 8.04,
            "times naive, alone": 8.04, "score bp/s": 31_000.4, "track bp/s": 20_000.0,
        },
        "start_up": {
            "seconds": {"python": 0.02, "import torch": 1.5, "info": 0.25}, "wanted": {"info": 0.5},
        },
        "whole job: embed": {
            "what": "embeddings", "seconds": {"ours": 2.0, "transformers": 3.0}, "ratio": {"transformers": 1.5},
            "peak_gib": {"ours": 0.5, "transformers": 1.25},
        },
    }  # fmt: skip
    (variants,) = tables.variant_lines(rows, "avx2")
    assert variants == (
        "variants, m, 384 bp of context, 2 threads",
        "8.0 a second alone, 8.0 times as fast as two forward passes an allele through transformers; `score` 31,000 "
        "bp/s, `track` 20,000",
        "5 times",
    )
    (start,) = tables.start_lines(rows, "avx2")
    assert start == (
        "`info`", "0.25 s from start to end (only Python 0.02, `import torch` 1.50)", "0.50 s"
    )  # fmt: skip
    (job,) = tables.job_lines(rows, "avx2")
    assert job == (
        "embeddings",
        "2.0 s, 0.50 GiB; transformers 3.0 s, 1.25 GiB: 1.50 times our time for the same work",
        "-",
    )
    rows["whole job: embed"]["training_s"] = {"ours": 1.0, "transformers": 1.5}
    ((_, text, _),) = tables.job_lines(rows, "avx2")
    assert text.endswith("1.50 times our time; training steps alone, s: ours 1.0, transformers 1.5")
