"""The way `tuned`: rates are chosen on dev rows, seeds differ, and sequences over the limit are errors at once."""

import json

import numpy as np
import pytest

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.suites.job import Choices, evaluate
from dnagpt_fast.suites.task import Source
from dnagpt_fast.suites.tuned import Tuning
from tests.suites.benchmark_data import gue_folder, labelled, small_model, write_csv


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("dnagpt_fast.suites.labelled.KMERS", (2,))
    monkeypatch.setattr("dnagpt_fast.suites.job.write_report", lambda *_: None)


@pytest.mark.slow
def test_a_tuned_model_beside_its_control(tmp_path):
    data, model = gue_folder(tmp_path / "gue"), str(small_model(tmp_path))
    tuning = Tuning(lrs=(1e-9, 1e-2), seeds=2, epochs=1)
    choices = Choices((model,), ways=("tuned",), tuning=tuning, resamples=10)
    report = evaluate("gue", Source(data), choices, tmp_path / "report")
    results = {one["method"]: one for one in report["tasks"][0]["results"]}
    mine, control = results[f"{model}, tuned"], results[f"{model}, random weights, tuned"]
    assert mine["seeds"] == control["seeds"] == 2
    chosen = mine["chosen"]
    losses = {rate: chosen[f"dev_loss at {rate:g}"] for rate in tuning.lrs}
    assert len(set(losses.values())) == 2
    assert chosen["lr"] == min(losses, key=losses.__getitem__)
    assert {one["minus"] for one in report["tasks"][0]["differences"]} >= {f"{model}, random weights, tuned"}
    assert json.dumps(report["job"]["tuning"])
    assert not list(tmp_path.glob(".report*"))


def test_sequences_over_the_limit_are_errors_before_training(tmp_path, monkeypatch):
    data, model = gue_folder(tmp_path / "gue"), str(small_model(tmp_path))
    rows = labelled(np.random.default_rng(1), 24)
    rows[5] = (rows[5][0] * 6, rows[5][1])
    write_csv(data / "motif" / "test.csv", rows)
    monkeypatch.setattr("dnagpt_fast.suites.tuned.finetune", None)
    with pytest.raises(LabelError, match=r"test.csv:7: 240 bases; this model with this template takes"):
        evaluate("gue", Source(data), Choices((model,), ways=("tuned",)), tmp_path / "report")
