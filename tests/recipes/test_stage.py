"""Shared steps of the recipes: no test row was in the packaged model's training, and no run is taken for another."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dnagpt_fast.evaluation.scores import Score
from dnagpt_fast.finetune.data.examples import Loci
from dnagpt_fast.suites import tuned as tuning

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """
[task]
kind = "classification"
[model]
max_len = 24
num_layers = 1
num_heads = 1
embedding_dim = 8
[vocabulary]
k = 1
[run]
runs = 2
epochs = 1
warmup_epochs = 0
device = "cpu"
"""


@pytest.fixture
def stage(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    monkeypatch.delitem(sys.modules, "stage", raising=False)
    import stage

    (tmp_path / "tiny.toml").write_text(SETTINGS)
    return stage


@pytest.fixture
def signals(stage, monkeypatch):
    monkeypatch.delitem(sys.modules, "human_signals", raising=False)
    import human_signals

    return human_signals


def loci(*starts):
    start = np.array(starts)
    return Loci(["20"] * len(starts), start, start + 100, ["+"] * len(starts))


def test_rows_of_the_packaged_models_training_are_refused(stage):
    stage.refuse_seen(loci(2_000_000, 62_000_000), "human")
    with pytest.raises(
        SystemExit, match=r"2 held-out rows were in the packaged model's training; the first: 20:3999950"
    ):
        stage.refuse_seen(loci(2_000_000, 3_999_950, 10_000_000), "human")


def test_ranges_that_the_packaged_model_does_not_record_are_refused(stage, monkeypatch, tmp_path):
    text = (ROOT / "recipes/packaged_model.toml").read_text()
    (tmp_path / "packaged_model.toml").write_text(text.replace('"20:0-4000000"', '"20:0-5000000"'))
    monkeypatch.setattr(stage, "HERE", tmp_path)
    with pytest.raises(SystemExit, match="the packaged model"):
        stage.held_out_of_packaged("human")


def test_the_signals_are_split_inside_these_ranges(stage, signals):
    for settings, *_ in signals.SIGNALS.values():
        assert settings.held_out == stage.held_out_of_packaged("human")
        assert settings.within_genes
        assert settings.drop_copies


def test_thinning_keeps_all_test_rows_and_as_many_negatives_as_sites(signals, tmp_path):
    lines = ["sequence\tlabel\tcontig\tstart_bp\tend_bp\tstrand\tsplit"]
    for i, part in enumerate(("train", "validation", "test")):
        for j in range(10):
            label = "donor" if j < 3 else "negative"
            lines.append(
                f"{'ACGT'[j % 4] * 8}\t{label}\t20\t{1000 * i + 10 * j}\t{1000 * i + 10 * j + 8}\t+\t{part}"
            )
    (tmp_path / "all.tsv").write_text("\n".join(lines) + "\n")
    signals.thinned(tmp_path / "all.tsv", tmp_path / "some.tsv", seed=0)
    kept = (tmp_path / "some.tsv").read_text().splitlines()
    assert set(kept) <= set(lines)
    assert [line for line in kept if line.endswith("test")] == lines[21:]
    for part in ("train", "validation"):
        labels = [line.split("\t")[1] for line in kept if line.endswith(part)]
        assert sorted(labels) == ["donor"] * 3 + ["negative"] * 3


@pytest.fixture
def tuning_done(monkeypatch):
    """Fine-tuning whose validation loss is least at a rate of 3e-4; the (rate, seed, start) of its runs."""
    done = []

    def finetune(config, run, *, resume, console):
        assert config.run.runs == 1
        run.mkdir()
        loss = abs(np.log10(config.optimizer.lr / 3e-4))
        (run / "results.json").write_text(json.dumps({"validation_loss": loss}))
        done.append((config.optimizer.lr, config.run.seed, config.start.path))
        return [SimpleNamespace(stopped_by=None)]

    monkeypatch.setattr(tuning, "finetune", finetune)
    return done


def test_each_start_has_the_rate_with_the_lowest_loss(stage, tmp_path, monkeypatch, tuning_done):
    monkeypatch.setattr(stage, "HERE", tmp_path)
    data = tmp_path / "rows.csv"
    data.write_text("sequence,label,split\n")
    found = stage.tuned("tiny", data, tmp_path / "run", "dna_gpt6m_m")
    assert found.lr == 3e-4
    assert list(found.losses) == list(stage.RATES)
    assert [run.name for run in found.folders] == ["lr0.0003-seed0", "lr0.0003-seed1"]
    wanted = [(1e-4, 0), (3e-4, 0), (1e-3, 0), (3e-4, 1)]
    assert tuning_done == [(*one, "dna_gpt6m_m") for one in wanted]


def test_other_rows_settings_and_starts_are_other_runs(stage, tmp_path, monkeypatch, tuning_done):
    monkeypatch.setattr(stage, "HERE", tmp_path)
    data = tmp_path / "rows.csv"
    data.write_text("sequence,label,split\n")
    first = stage.tuned("tiny", data, tmp_path / "run", "", rates=[1e-3])
    assert len(tuning_done) == 2
    assert stage.tuned("tiny", data, tmp_path / "run", "", rates=[1e-3]) == first  # taken as it is
    assert len(tuning_done) == 2
    found = [first, stage.tuned("tiny", data, tmp_path / "run", "dna_gpt6m_m", rates=[1e-3])]
    found.append(stage.tuned("tiny", data, tmp_path / "run", "", "run.epochs=2", rates=[1e-3]))
    data.write_text("sequence,label,split\nACGT,1,train\n")
    found.append(stage.tuned("tiny", data, tmp_path / "run", "", rates=[1e-3]))
    (tmp_path / "tiny.toml").write_text(SETTINGS.replace("embedding_dim = 8", "embedding_dim = 16"))
    found.append(stage.tuned("tiny", data, tmp_path / "run", "", rates=[1e-3]))
    assert len({one.folders[0].parent for one in found}) == 5
    assert len(tuning_done) == 10


def test_differences_are_paired(stage):
    values = np.random.default_rng(0).normal(size=40)
    methods = {name: (lambda drawn, shift=shift: {"mean": float(values[drawn].mean() + shift)})
               for name, shift in (("a", 0.1), ("b", 0.0))}  # fmt: skip
    clusters = np.arange(40) // 4
    found = stage.differences(methods, [("a", "b")], ["mean"], 40, clusters, 50)
    assert found == {"a – b": {"mean": Score(*[pytest.approx(0.1)] * 3)}}
    alone = stage.scores(methods, 40, clusters, 50)["a"]["mean"]
    assert alone.low < 0.1 < alone.high


def test_a_clock_adds_up_the_runs_of_a_recipe(stage, tmp_path):
    for wanted in (1, 2):
        clock = stage.Clock(tmp_path / "time.json")
        clock._last -= 10
        clock.lap("training")
        assert 10 * wanted <= clock.parts["training"][0] < 10 * wanted + 5
    assert "| training | 20 |" in clock.report()
