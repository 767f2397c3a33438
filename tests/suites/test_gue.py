"""The suite gue from the command line: its report, its errors before any work, and a resumed run."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dnagpt_fast.cli import main
from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.suites import gue
from dnagpt_fast.suites.job import Choices, evaluate
from dnagpt_fast.suites.subjects import OwnModel
from dnagpt_fast.suites.task import FROZEN, Source
from dnagpt_fast.training.job_folder import JournalError
from tests.suites.benchmark_data import gue_folder, labelled, small_model, write_csv


@pytest.fixture(autouse=True)
def _few_kmers(monkeypatch):
    monkeypatch.setattr("dnagpt_fast.suites.labelled.KMERS", (2,))


@pytest.fixture
def _no_files(monkeypatch):
    """Without the report's files, which take most of the time."""
    monkeypatch.setattr("dnagpt_fast.suites.job.write_report", lambda *_: None)


@pytest.fixture
def data(tmp_path):
    return gue_folder(tmp_path / "gue")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(small_model(tmp_path_factory.mktemp("model")))


def choices(model, **more):
    return Choices((model,), resamples=20, **more)


def run(tmp_path, data, model, **more):
    return evaluate("gue", Source(data), choices(model, **more), tmp_path / "report")


def test_the_report(tmp_path, data, model, capsys):
    out = tmp_path / "report"
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "gue", "--data", str(data), "--model", model, "-o", str(out), "--resamples", "20",
              "--max-rows", "50", "--json"])  # fmt: skip
    assert not ended.value.code
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((out / "report.json").read_text())
    (task,) = report["tasks"]
    scores = {one["method"]: one["scores"]["mcc"] for one in task["results"]}
    assert list(scores) == [
        "majority class", "k-mer logistic regression", "Markov chains", "positional logistic regression",
        f"{model}, frozen", f"{model}, random weights, frozen",
    ]  # fmt: skip
    assert scores["majority class"] == [0.0, 0.0, 0.0]
    assert scores["positional logistic regression"][0] > 0.8
    for value, low, high in scores.values():
        assert low <= value <= high
    assert task["facts"]["train"]["drawn_from"] == 60
    assert task["facts"]["train"]["rows"] == 50
    differences = {one["minus"] for one in task["differences"]}
    assert f"{model}, random weights, frozen" in differences
    assert len(differences) == 2
    assert len(report["job"]["files"]) == 3
    text, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    assert f"{scores['k-mer logistic regression'][0]:.3f} (" in text
    assert "data:image/png;base64," in page
    assert "http" not in page
    with np.load(out / "predictions.npz") as kept:
        assert kept["motif|majority class"].shape == (1, 24, 2)
    assert not list(tmp_path.glob(".report*"))


@pytest.mark.usefixtures("_no_files")
def test_a_stopped_job_goes_on_where_it_ended(tmp_path, data, model, monkeypatch):
    undisturbed = run(tmp_path, data, model)
    asked = []
    whole = OwnModel.vectors

    def failing(self, texts):
        asked.append(self.name)
        if "random" in self.name:
            raise KeyboardInterrupt
        return whole(self, texts)

    monkeypatch.setattr(OwnModel, "vectors", failing)
    out = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        evaluate("gue", Source(data), choices(model), out)
    assert not out.exists()
    with pytest.raises(JournalError, match="--resume"):
        evaluate("gue", Source(data), choices(model), out)
    with pytest.raises(JournalError, match="seed was 0, is 1"):
        evaluate("gue", Source(data, seed=1), choices(model), out, resume=True)
    monkeypatch.setattr(OwnModel, "vectors", lambda self, texts: asked.append("again") or whole(self, texts))
    asked.clear()
    report = evaluate("gue", Source(data), choices(model), out, resume=True)
    assert asked == ["again"] * 3  # the random model only, its three parts
    for mine, theirs in zip(report["tasks"], undisturbed["tasks"], strict=True):
        assert [one["scores"] for one in mine["results"]] == [one["scores"] for one in theirs["results"]]


def test_copies_across_the_split_are_found(data):
    rows = labelled(np.random.default_rng(5), 24)
    write_csv(data / "motif" / "test.csv", rows)
    write_csv(data / "motif" / "train.csv", [*labelled(np.random.default_rng(6), 60), rows[3]])
    (task,) = gue.tasks(Source(data))
    assert task.facts["leaks"]["test_in_train"] == {"identical": 1, "near": 1}
    assert "test.csv:5" in task.findings[0]


def before_any_work(monkeypatch):
    def refuse(*_):
        raise AssertionError("work before the check")

    for name in ("vectors", "log_likelihoods"):
        monkeypatch.setattr(OwnModel, name, refuse)
    monkeypatch.setattr("dnagpt_fast.suites.labelled.choose_logistic", refuse)


@pytest.mark.parametrize(
    ("part", "rows", "message"),
    [
        ("test", None, r"motif: 0 files for the part test: .*it has dev.csv, train.csv"),
        ("train", [("ACGTACGTAC", "1")] * 4, r"train.csv:2: this label, '1', is that of all 4 training rows"),
        ("test", [("ACGTACGTAC", "0"), ("ACGTACGTAC", "7")], r"test.csv:3: label '7' is not one of"),
        ("dev", [("ACGTACGTAC", "0")], r"dev.csv:2: the 1 dev rows from here have no row of class '1'"),
        ("test", [("ACGT!ACGTAC", "0")], r"test.csv:2: base 4 is '!'"),
        ("dev", [("ACGTACGTAC", "")], r"dev.csv:2: label is missing"),
    ],
)
def test_bad_rows_are_errors_before_any_work(tmp_path, data, model, monkeypatch, part, rows, message):
    before_any_work(monkeypatch)
    path = data / "motif" / f"{part}.csv"
    path.unlink() if rows is None else write_csv(path, rows)
    with pytest.raises(LabelError, match=message):
        run(tmp_path, data, model)
    assert not (tmp_path / "report").exists()
    assert not list(tmp_path.glob(".report*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["genes"], "no suite 'genes': there are gue"),
        (["gue", "--only", "none"], "no task none in it; it has motif|no task none"),
        (["gue", "--way", "mean"], "--way mean: wanted frozen, tuned, likelihood"),
        (["gue", "--way", "likelihood"], "--way likelihood: this suite has frozen, tuned"),
        (["gue", "--way", "tuned", "--lr", "0"], "wanted numbers above 0"),
        (["gue", "--model", "a", "--model", "a"], "--model names a model twice"),
    ],
)
def test_wrong_choices(tmp_path, data, model, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *arguments, "--data", str(data), "--model", model, "-o", str(tmp_path / "out")])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert any(part in said for part in message.split("|")), said
    assert not (tmp_path / "out").exists()


def test_folders_of_one_name_are_named_by_their_parents(tmp_path):
    for kind in ("tf", "mouse"):
        gue_folder(tmp_path / "gue" / kind)
    assert [task.name for task in gue.tasks(Source(tmp_path / "gue"))] == ["mouse_motif", "tf_motif"]


def test_an_output_that_is_there_is_kept(tmp_path, data, model):
    (tmp_path / "report").mkdir()
    with pytest.raises(FileExistsError, match="report is there already"):
        run(tmp_path, data, model, ways=(FROZEN,))


@pytest.mark.slow
def test_a_killed_command_is_resumed(tmp_path, data, model):
    """The process is killed after its first finished method, and another one goes on."""
    command = [sys.executable, "-m", "dnagpt_fast", "evaluate", "gue", "--data", str(data), "--model", model]
    command += ["--resamples", "20"]
    subprocess.run([*command, "-o", str(tmp_path / "whole")], check=True)
    out, methods = tmp_path / "report", tmp_path / ".report.evaluation" / "methods"
    process = subprocess.Popen([*command, "-o", str(out)])
    while process.poll() is None and not (methods.exists() and methods.stat().st_size):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    subprocess.run([*command, "-o", str(out), "--resume"], check=True)
    scores = [
        [one["scores"] for one in json.loads((folder / "report.json").read_text())["tasks"][0]["results"]]
        for folder in (out, tmp_path / "whole")
    ]
    assert scores[0] == scores[1]
