"""The report on a GPU, tested without one: its sections at toy sizes, its assembly, its failures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_report, gpu_small
from dnagpt_fast.cli.doctor import Finding

ROOT = Path(__file__).resolve().parents[2]
PASSED = {"passed": True, "summary": "45 passed in 20 s"}
ROWS = [
    {"op": "gc_count", "case": "one | window", "us": 12.3456789, "share_of_copy": 0.912345},
    {"op": "gc_count", "case": "64 windows", "refused": "no"},
    {"op": "copy", "gb_per_s": 3000.0},
]


def rehearse(name):
    return list(gpu_report.section_of(name).rows(rehearse=True))


# the other implementations of the loss take half a minute: test_the_whole_rehearsal runs them
@pytest.mark.parametrize(
    "name",
    [name for name in (*gpu_report.SECTIONS, *gpu_report.SECTIONS_BESIDE) if name != "combined_loss"],
)
def test_every_section_makes_rows_of_finite_numbers(name):
    rows = rehearse(name)
    assert rows
    for row in json.loads(json.dumps(rows)):
        assert "refused" not in row, row
        numbers = [value for value in row.values() if isinstance(value, float)]
        assert numbers, row
        assert all(0 <= number < 1e15 for number in numbers), row


def test_all_together_stay_under_ten_minutes():
    checks = max(gpu_report.TEST_SECONDS, *gpu_report.SANITIZER_SECONDS.values())  # they run at the same time
    assert checks + sum(s.seconds for s in gpu_report.SECTIONS.values()) < 600


def test_each_op_has_a_table_with_its_columns():
    assert gpu_report.table(ROWS) == [
        *("", "### gc_count", "", "| case | us | share_of_copy | refused |", "|---|---|---|---|"),
        "| one \\| window | 12.35 | 0.9123 |  |",
        "| 64 windows |  |  | no |",
        *("", "### copy", "", "| gb_per_s |", "|---|", "| 3000 |"),
    ]


@pytest.fixture
def card(monkeypatch):
    """A machine with a GPU, whose tests pass and whose sections give ROWS."""
    sections = {name: {"rows": ROWS, "seconds": 1.0} for name in gpu_report.SECTIONS}
    tests = dict(PASSED)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_report, "circumstances", lambda: {"device": "NVIDIA H100", "torch": "2.13"})
    monkeypatch.setattr(gpu_report, "run_tests", lambda rehearse: tests)
    monkeypatch.setattr(gpu_report, "run_sanitizer", lambda tool, rehearse: dict(PASSED))
    monkeypatch.setattr(
        gpu_report.doctor, "examine", lambda: [Finding("NVIDIA driver", True, "supports CUDA 13.0")]
    )
    monkeypatch.setattr(gpu_report, "run_section", lambda name, rehearse, seconds=0.0: sections[name])
    return tests, sections


def test_the_report_is_one_json_and_one_page(card, tmp_path, capsys):
    assert gpu_report.main(["--to", str(tmp_path / "new")]) == 0
    report = json.loads((tmp_path / "new" / "gpu_report.json").read_text())
    assert not report["rehearsal"]
    assert list(report["sections"]) == list(gpu_report.SECTIONS)
    assert report["sections"]["genome"]["rows"] == ROWS
    page = (tmp_path / "new" / "gpu_report.md").read_text()
    assert page.startswith("# NVIDIA H100: kernels checked and timed\n")
    assert "passed: 45 passed in 20 s" in page
    assert page.count("### gc_count") == len(gpu_report.SECTIONS)
    assert "FAILED" not in page
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["gpu_report.json", "gpu_report.md"]


def test_a_failed_test_or_section_is_in_the_report_and_in_the_status(card, tmp_path):
    tests, sections = card
    sections["attention"] |= {"wrong": "not done after 110 s", "output": "Traceback ```"}
    assert gpu_report.main(["--to", str(tmp_path), "--only", "attention"]) == 1
    page = (tmp_path / "gpu_report.md").read_text()
    assert "**FAILED: not done after 110 s**" in page
    assert "## What attention printed\n\n```text\nTraceback '''\n```" in page
    assert gpu_report.main(["--to", str(tmp_path), "--only", "genome"]) == 0
    tests.update(passed=False, summary="1 failed", wrong="ended with status 1", output="o: error 1.0")
    assert gpu_report.main(["--to", str(tmp_path), "--only", "genome"]) == 1
    page = (tmp_path / "gpu_report.md").read_text()
    assert "FAILED: 1 failed" in page
    assert "o: error 1.0" in page


def test_an_old_driver_is_named_before_anything_runs(card, monkeypatch, tmp_path, capsys):
    old = Finding("NVIDIA driver", False, "supports CUDA 12.8, the kernels were built with CUDA 13.0")
    monkeypatch.setattr(gpu_report.doctor, "examine", lambda: [old])
    monkeypatch.setattr(gpu_report, "run_sanitizer", lambda tool, rehearse: pytest.fail("begun"))
    assert gpu_report.main(["--to", str(tmp_path / "none")]) == 2
    assert "supports CUDA 12.8" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_sanitizers_come_first_and_what_is_done_is_written(card, monkeypatch, tmp_path):
    """If the machine stops in the middle, there is a report of the sections before."""
    order = []
    monkeypatch.setattr(
        gpu_report, "run_sanitizer", lambda tool, rehearse: order.append(tool) or dict(PASSED)
    )

    def lost(rehearse):
        order.append("tests")
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_report, "run_tests", lost)
    with pytest.raises(KeyboardInterrupt):
        gpu_report.main(["--to", str(tmp_path)])
    assert order == ["memcheck", "racecheck", "tests"]
    report = json.loads((tmp_path / "gpu_report.json").read_text())
    assert report["sanitizers"]["racecheck"]["passed"]
    assert report["tests"]["summary"] == "not reached"


def test_the_small_shapes_of_the_sanitizers_run(capsys):
    assert gpu_small.main(["--device", "cpu"]) == 0
    assert "every kernel ran" in capsys.readouterr().out


def test_a_rehearsal_cannot_be_taken_for_a_report(card, tmp_path):
    assert gpu_report.main(["--to", str(tmp_path), "--rehearse", "--only", "genome"]) == 0
    assert [path.stem for path in tmp_path.iterdir()] == ["gpu_rehearsal"] * 2
    assert (tmp_path / "gpu_rehearsal.md").read_text().startswith("# REHEARSAL on the CPU")


def test_without_a_card_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_report.main(["--to", str(tmp_path / "none")]) == 2
    assert "no CUDA device here: CPU" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_a_section_runs_in_a_process_whose_rows_come_back():
    found = gpu_report.run_section("attention_decode", rehearse=True)
    assert "wrong" not in found, found["output"]
    assert [row["contender"] for row in found["rows"]] == ["plain torch", "ours (grouped)"]


def test_rows_made_before_a_failure_are_kept(monkeypatch):
    def run(command, seconds):
        Path(command[command.index("--rows") + 1]).write_text(json.dumps(ROWS[0]) + "\n")
        return "ended with status 1", "CUDA error: an illegal memory access"

    monkeypatch.setattr(gpu_report, "run_process", run)
    found = gpu_report.run_section("genome", rehearse=False)
    assert found["rows"] == ROWS[:1]
    assert found["wrong"] == "ended with status 1"
    assert "illegal memory access" in found["output"]


def test_a_process_that_hangs_or_fails():
    python = [sys.executable, "-u", "-c"]
    code = "import time; print('begun'); time.sleep(60)"
    wrong, printed = gpu_report.run_process([*python, code], 3)
    assert wrong == "not done after 3 s"
    assert "begun" in printed
    wrong, printed = gpu_report.run_process([*python, "raise SystemExit('lost')"], 30)
    assert (wrong, printed) == ("ended with status 1", "lost\n")
    assert gpu_report.run_process([*python, "import os; print(os.environ['X'])"], 30, X="y") == ("", "y\n")


def test_circumstances_name_what_ran():
    found = gpu_report.circumstances()
    assert found["torch"] == torch.__version__
    assert found["implementations"]["attention"]["cuda"] == "rule"
    json.dumps(found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card: `pytest -m gpu` runs them")
def test_without_a_card_the_tests_for_one_are_collected_and_skipped_with_the_reason():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "torch sees no CUDA device" in run.stdout
    assert "passed" not in run.stdout


@pytest.mark.slow
def test_the_whole_rehearsal(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu_report", "--rehearse", "--to", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr + (tmp_path / "gpu_rehearsal.md").read_text()
    report = json.loads((tmp_path / "gpu_rehearsal.json").read_text())
    assert report["tests"]["passed"]
    assert all(section["rows"] for section in report["sections"].values())
