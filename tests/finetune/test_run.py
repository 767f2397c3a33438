"""Whole fine-tuning runs: they learn, resume bit for bit, stop early, predict, and refuse bad input."""

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from dnagpt_fast.cli.app import main
from dnagpt_fast.finetune import run as module
from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.predict import load_finetuned, predict
from dnagpt_fast.finetune.run import finetune
from dnagpt_fast.finetune.settings import ConfigError
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.log import read_metrics
from dnagpt_fast.training.loop import Loop
from dnagpt_fast.weights.forms import convert
from tests.finetune.labelled import config_for, write_motif_table, write_number_table

QUIET = Console(quiet=True)


def run(path, out, *more, resume=False):
    return finetune(config_for(path, *more), out, resume=resume, console=QUIET)


@pytest.fixture(scope="module")
def motif_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motif")
    table = write_motif_table(folder)
    run(table, folder / "run", "task.positive=yes", "run.epochs=12", "run.patience=0")
    return table, folder / "run"


def test_it_learns_a_motif_and_writes_a_complete_report(motif_run):
    _, folder = motif_run
    results = json.loads((folder / "results.json").read_text())
    # 16 test rows, half of them with the motif: 14 right by chance has a probability below 0.3 %
    assert results["test"]["accuracy"][0] >= 14 / 16
    assert {p.name for p in folder.iterdir()} == {
        "README.md", "checkpoints", "config.json", "loss.png", "loss.svg", "metrics.jsonl", "model.safetensors",
        "predictions.tsv", "results.json", "test.png", "test.svg",
    }  # fmt: skip
    card = (folder / "README.md").read_text()
    record = json.loads((folder / "config.json").read_text())
    for said in (
        record["hashes"]["motif.csv"],
        "no 24, yes 24",
        "the column `split`",
        "random weights, seed 0",
        "| mcc |",
    ):
        assert said in card
    assert str(folder.parent) not in card, "the folders of this computer are nobody's business"
    assert "![Predictions of the test rows](test.png)" in card
    largest, linear = results["baselines"].values()
    assert list(results["baselines"]) == ["always the largest class", "logistic regression on 4-mer counts"]
    assert largest["accuracy"][0] == 0.5
    assert largest["mcc"][0] == 0
    assert list(linear) == list(largest) == list(results["test"])
    assert f"| always the largest class | {largest['accuracy'][0]:.4f} |" in card
    validation = [r["validation_loss"] for r in read_metrics(folder) if "validation_loss" in r]
    assert len(validation) == 12
    assert results["validation_loss"] == min(validation)
    assert (
        (folder / "predictions.tsv")
        .read_text()
        .startswith("where\tlabel\tpredicted\tp_no\tp_yes\nmotif.csv:")
    )


def test_predict_gives_the_predictions_of_the_report(motif_run, tmp_path):
    table, folder = motif_run
    data = config_for(table).data
    found, language = predict(folder, data, tmp_path / "p.tsv", device="cpu", batch_size=3)
    reported = [line.split("\t") for line in (folder / "predictions.tsv").read_text().splitlines()[1:]]
    ours = {where: row for where, row in zip(found.where, found.values, strict=True)}
    assert len(found.where) == 80
    for where, _, _, p_no, p_yes in reported:
        assert ours[where] == pytest.approx([float(p_no), float(p_yes)], abs=1e-5)
    assert (tmp_path / "p.tsv").read_text().splitlines()[0] == "where\tpredicted\tp_no\tp_yes"
    assert language.classes == ("no", "yes")


def test_predictions_with_int8_products_do_not_depend_on_the_batch(motif_run, tmp_path, monkeypatch):
    table, folder = motif_run
    data, output = config_for(table).data, tmp_path / "p.tsv"
    exact, _ = predict(folder, data, output, device="cpu")
    monkeypatch.setenv("DNAGPT_FAST_IMPL", "linear_int8=torch")
    settings = {"device": "cpu", "products": "int8"}
    found = [predict(folder, data, output, batch_size=n, **settings)[0].values for n in (1, 3, 32)]
    # the last product, with the rows of the answers, is in float32: its sums may differ in the last bit
    assert max(np.abs(found[0] - other).max() for other in found) < 1e-6
    assert 1e-5 < np.abs(found[0] - exact.values).max() < 0.05


def test_predict_refuses_a_table_of_another_kind_before_it_predicts(motif_run, tmp_path):
    table, folder = motif_run
    with pytest.raises(ValueError, match=r"p.xlsx: tables are written as .tsv or .csv"):
        predict(folder, config_for(table).data, tmp_path / "p.xlsx")


def test_windows_of_a_long_sequence_are_averaged(motif_run, tmp_path):
    _, folder = motif_run
    long = "ACGTTGCA" * 12  # 96 bases, two windows of the 58 that fit
    (tmp_path / "x.csv").write_text(f"sequence\n{long}\n{long[:58]}\n{long[-58:]}\n")
    path = f'data.path="{tmp_path / "x.csv"}"'
    with pytest.raises(LabelError, match=r"x.csv:2: 96 bases; this model with this template takes 58"):
        predict(folder, config_for("x", path).data, tmp_path / "p.tsv", device="cpu")
    data = config_for("x", path, "data.on_long=window").data
    found, _ = predict(folder, data, tmp_path / "p.tsv", device="cpu")
    assert len(found.where) == 3
    assert found.values[0] == pytest.approx((found.values[1] + found.values[2]) / 2, abs=1e-6)


@pytest.mark.parametrize(
    "method",
    [(), ("tuning.method=lora", "tuning.lora_rank=2", "tuning.lora_dropout=0.2")],
    ids=["full", "lora"],
)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, monkeypatch, method):
    table = write_motif_table(tmp_path, 40)
    settings = ("run.epochs=3", *method)
    (whole,) = run(table, tmp_path / "whole", *settings)

    original = Loop.begin

    def stopped(self, step, stop):
        if step == 4:  # in the middle of the second epoch of three steps
            signal.raise_signal(signal.SIGTERM)
        return original(self, step, stop)

    monkeypatch.setattr(Loop, "begin", stopped)
    (part,) = run(table, tmp_path / "parts", *settings)
    assert (part.steps, part.stopped_by) == (5, "SIGTERM")
    monkeypatch.setattr(Loop, "begin", original)
    (rest,) = run(table, tmp_path / "parts", *settings, resume=True)
    assert whole.steps == rest.steps == 9
    ours, theirs = (
        load_file(tmp_path / "parts/model.safetensors"),
        load_file(tmp_path / "whole/model.safetensors"),
    )
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    drop = ("seconds",)
    for a, b in zip(read_metrics(tmp_path / "parts"), read_metrics(tmp_path / "whole"), strict=True):
        assert {k: v for k, v in a.items() if k not in drop} == {k: v for k, v in b.items() if k not in drop}
    assert rest.report["test"] == whole.report["test"]


def test_several_runs_go_on_where_they_were_stopped(tmp_path, monkeypatch, capsys):
    table = write_motif_table(tmp_path, 40)
    settings = ("run.epochs=2", "run.runs=2")
    run(table, tmp_path / "whole", *settings)
    original, steps = Loop.begin, []

    def stopped(self, step, stop):
        steps.append(step)
        if len(steps) == 8:  # the second step of the second run
            signal.raise_signal(signal.SIGTERM)
        return original(self, step, stop)

    monkeypatch.setattr(Loop, "begin", stopped)
    assert run(table, tmp_path / "parts", *settings)[-1].stopped_by == "SIGTERM"
    with pytest.raises(ConfigError, match="holds a run already"):
        run(table, tmp_path / "parts", *settings)
    # the command line finds the settings in the folder
    with pytest.raises(SystemExit) as exit_:
        main(["finetune", "--out", str(tmp_path / "parts"), "--resume"])
    assert not exit_.value.code
    assert len(steps) == 2 * 6
    whole, parts = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "parts"))
    assert parts == whole


def test_resuming_with_other_settings_or_data_is_refused(tmp_path):
    table = write_motif_table(tmp_path, 40)
    run(table, tmp_path / "r", "run.epochs=1")
    with pytest.raises(ConfigError, match=r"holds a run already: continue it with --resume"):
        run(table, tmp_path / "r", "run.epochs=1")
    with pytest.raises(ConfigError, match=r"other settings or files: run.epochs was 1, is 2"):
        run(table, tmp_path / "r", "run.epochs=2", resume=True)
    table.write_text(table.read_text() + "ACGTACGTACGT,no,train\n")
    with pytest.raises(
        ConfigError, match=r"files: the SHA-256 of motif.csv \(then motif.csv\) was '[0-9a-f]{64}', is"
    ):
        run(table, tmp_path / "r", "run.epochs=1", resume=True)


def test_data_and_start_may_move_and_not_change(motif_run, tmp_path, capsys):
    """What lies elsewhere under another name is the same by its bytes; what has other bytes is refused, by name."""
    table, tuned = motif_run
    shutil.copytree(tuned, tmp_path / "begin")
    shutil.copy(table, tmp_path / "a.csv")
    out = tmp_path / "r"
    run(tmp_path / "a.csv", out, f"start.path={tmp_path / 'begin'}", "run.epochs=1")
    (tmp_path / "begin").rename(tmp_path / "moved")
    (tmp_path / "a.csv").rename(tmp_path / "b.csv")
    again = ["finetune", "--out", str(out), "--resume"]
    with pytest.raises(SystemExit):
        main(again)
    assert f"no file {tmp_path / 'a.csv'}" in capsys.readouterr().err
    moved = ["--data", str(tmp_path / "b.csv"), "--start", str(tmp_path / "moved")]
    with pytest.raises(SystemExit) as ended:
        main([*again, *moved])
    assert not ended.value.code, capsys.readouterr().err
    weights = load_file(tmp_path / "moved" / "model.safetensors")
    name = next(name for name in weights if name.endswith("bias") or name.endswith("weight"))
    weights[name] = weights[name] + 1
    save_file(weights, tmp_path / "moved" / "model.safetensors")
    with pytest.raises(SystemExit) as ended:
        main([*again, *moved])
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert f"the SHA-256 of the weights in {tmp_path / 'moved'} (start.path) was" in said
    with pytest.raises(SystemExit):
        main([*again, "--data", str(tmp_path / "b.csv"), "--set", "start.path="])
    assert "start.path was" in capsys.readouterr().err


def test_it_stops_early_and_keeps_the_best(tmp_path, monkeypatch):
    table = write_motif_table(tmp_path, 40)
    losses = iter([0.5, 0.3, 0.4, 0.31, 0.1])
    monkeypatch.setattr(module.FinetuneRun, "validation_loss", lambda self: next(losses))
    kept = []
    original = module.write_safetensors
    monkeypatch.setattr(
        module, "write_safetensors", lambda path, state: (kept.append(path), original(path, state))
    )
    (outcome,) = run(table, tmp_path / "r", "run.epochs=9", "run.patience=2")
    assert outcome.report["epochs"] == 4
    assert outcome.report["best_step"] == 2 * 3
    assert len(kept) == 2
    (again,) = run(
        table, tmp_path / "r", "run.epochs=9", "run.patience=2", resume=True
    )  # nothing is left to do
    assert again.report["epochs"] == 4


def test_regression_with_numbers(tmp_path):
    table = write_number_table(tmp_path, 200)
    columns = 'data.number_columns=["x", "y"]'
    (outcome,) = run(
        table,
        tmp_path / "r",
        "task.kind=regression",
        columns,
        "run.epochs=20",
        "run.patience=0",
        "optimizer.lr=4e-3",
    )
    assert outcome.report["test"]["pearson"][0] > 0.9
    _, language, _ = load_finetuned(tmp_path / "r")
    labels = [float(line.split(",")[1]) for line in table.read_text().splitlines()[1:121]]
    assert language.standardisation.target_mean == pytest.approx(np.mean(labels))
    assert len(language.standardisation.number_mean) == 2
    header, *rows = [
        line.split("\t") for line in (tmp_path / "r" / "predictions.tsv").read_text().splitlines()
    ]
    assert header == ["where", "label", "predicted"]
    given = table.read_text().splitlines()
    for where, label, _ in rows:
        assert label == given[int(where.removeprefix(f"{table.name}:")) - 1].split(",")[1], (
            "the label as it came"
        )
    found, _ = predict(tmp_path / "r", config_for(table, columns).data, tmp_path / "p.csv", device="cpu")
    assert abs(found.values.mean() - np.mean(labels)) < 3  # in the label's own units
    with pytest.raises(ConfigError, match=r"the model was tuned with 2 numbers, \('x', 'y'\)"):
        predict(tmp_path / "r", config_for(table).data, tmp_path / "p.csv")


def test_log_labels_must_not_be_negative(tmp_path):
    table = write_number_table(tmp_path)
    table.write_text(table.read_text().replace("sequence,", "sequence,", 1) + "ACGT,-3,1,1,train\n")
    with pytest.raises(LabelError, match=r"numbers.csv:82: label -3: log10\(x \+ 0.1\) needs x >= 0"):
        run(table, tmp_path / "r", "task.kind=regression", "task.target_transform=log10")


def test_haplotypes(tmp_path):
    rng = np.random.default_rng(0)
    founders = rng.integers(0, 2, (4, 20))
    rows = founders[rng.integers(4, size=40)].T
    lines = [f"20 v{i} {100 * i + 1} A G {' '.join(map(str, row))}" for i, row in enumerate(rows.tolist())]
    (tmp_path / "x.haps").write_text("\n".join(lines) + "\n")
    (outcome,) = run(
        tmp_path / "x.haps",
        tmp_path / "r",
        "task.kind=generation",
        "run.epochs=30",
        "run.patience=0",
        "sampling.count=30",
    )
    scores = outcome.report["test"]
    assert scores["nats_per_bp"] < 0.4  # a model that only knows the two alleles has ln 2
    assert scores["letters_of_no_allele"] < 0.05
    from dnagpt_fast.finetune.data.haplotypes import read_haplotypes

    made = read_haplotypes(tmp_path / "r/made.haps", min_allele_count=0)
    assert made.alleles.shape == (30, len(made.position_bp))
    counts = json.loads((tmp_path / "r/config.json").read_text())["counts"]
    assert [counts[name]["rows"] for name in ("train", "validation", "test")] == [28, 4, 8]
    card = (tmp_path / "r/README.md").read_text()
    assert "Split: by person, shares [0.7, 0.1, 0.2], seed 0." in card
    assert "Intervals" not in card  # these scores have none
    with pytest.raises(ConfigError, match=r"tuned for generation, which has no predictions"):
        predict(tmp_path / "r", None, tmp_path / "p.tsv")
    # a finished run generates more haplotypes without training again
    (again,) = run(
        tmp_path / "x.haps",
        tmp_path / "r",
        "task.kind=generation",
        "run.epochs=30",
        "run.patience=0",
        "sampling.count=50",
        resume=True,
    )
    assert again.steps == outcome.steps
    assert len((tmp_path / "r/made.tsv").read_text().splitlines()) == 51


def test_generation_of_sequences(tmp_path):
    (outcome,) = run(write_motif_table(tmp_path, 40), tmp_path / "r", "task.kind=generation", "run.epochs=1")
    assert list(outcome.report["test"]) == ["nats_per_bp"]
    assert "Split: the column `split` of the data." in (tmp_path / "r/README.md").read_text()
    assert len((tmp_path / "r/made.tsv").read_text().splitlines()) == 1 + 8


def test_several_runs_are_summarised(tmp_path):
    table = write_motif_table(tmp_path, 40)
    outcomes = run(table, tmp_path / "r", "run.epochs=1", "run.runs=2", "run.seed=7")
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    values = [o.report["test"]["auroc"][0] for o in outcomes]
    assert summary["runs"] == 2
    assert summary["auroc"] == {
        "mean": pytest.approx(np.mean(values)), "sd": pytest.approx(np.std(values, ddof=1)), "values": values,
    }  # fmt: skip
    first, second = (load_file(tmp_path / f"r/run-{i}/model.safetensors") for i in (0, 1))
    assert not torch.equal(first["transformer.wte.weight"], second["transformer.wte.weight"])
    with pytest.raises(ConfigError, match=r"holds several runs: choose one of them, such as .*run-0"):
        predict(tmp_path / "r", config_for(table).data, tmp_path / "p.tsv")


def test_starting_from_a_fine_tuned_run_an_official_file_and_a_hugging_face_folder(motif_run, tmp_path):
    table, folder = motif_run
    before = load_file(folder / "model.safetensors")
    torch.save({"model": before}, tmp_path / "official.pth")
    convert(folder, tmp_path / "hf_folder", "hf")
    for name, source, more in (
        ("tuned", folder, ()),
        ("official", tmp_path / "official.pth", ("start.num_heads=2",)),
        ("hf", tmp_path / "hf_folder", ()),
    ):
        run(table, tmp_path / name, f'start.path="{source}"', "run.epochs=1", "optimizer.lr=0.0", *more)
        after = load_file(tmp_path / name / "model.safetensors")
        assert all(torch.equal(after[key], before[key]) for key in before)
        assert len(json.loads((tmp_path / name / "config.json").read_text())["start_sha256"]) == 64


def test_starting_from_a_pre_training_run(tmp_path):
    from dnagpt_fast.pretrain.run import pretrain
    from dnagpt_fast.pretrain.settings import load_config
    from tests.finetune.data.genomes import random_bases

    (tmp_path / "g.fa").write_text(f">1\n{random_bases(3000, seed=0)}\n")
    small = [
        "model.max_len=32",
        "model.num_layers=2",
        "model.num_heads=2",
        "model.embedding_dim=16",
        "model.bias=true",
    ]
    settings = [
        *small,
        "vocabulary.k=2",
        "run.steps=2",
        "run.batch_size=2",
        "schedule.warmup_steps=1",
        "run.device=cpu",
    ]
    pretrain(load_config(None, settings, [f"human={tmp_path / 'g.fa'}"]), tmp_path / "pre", console=QUIET)
    table = write_motif_table(tmp_path, 40)
    run(table, tmp_path / "r", f'start.path="{tmp_path / "pre"}"', "run.epochs=1", "optimizer.lr=0.0")
    before = checkpoint.newest(tmp_path / "pre").weights()
    after = load_file(tmp_path / "r/model.safetensors")
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        (
            lambda row, i: row.replace(",yes,test", ",no,test"),
            (),
            r"x.csv:3: class 'yes' of this row is empty in the test set",
        ),
        (
            lambda row, i: row.replace(",no", ",noo") if i == 4 else row,
            (),
            r"x.csv:6: class 'noo' of this row is empty in the test set: change the label",
        ),
        (lambda row, i: "" if row.endswith("validation") else row, (), r"x.csv: no validation rows"),
        (
            lambda row, i: row.replace(",yes", ",1").replace(",no", ",1" if "test" in row else ",0"),
            ("task.kind=regression",),
            r"x.csv:\d+: 4 test row\(s\) with labels from 1 to 1: wanted 3 or more that vary",
        ),
    ],
    ids=["no test row of a class", "a misspelt label", "no validation rows", "one test value"],
)
def test_rows_that_cannot_be_judged_are_refused_before_training(tmp_path, change, more, said):
    header, *rows = write_motif_table(tmp_path, 20).read_text().splitlines()
    changed = [new for i, row in enumerate(rows) if (new := change(row, i))]
    (tmp_path / "x.csv").write_text("\n".join([header, *changed]) + "\n")
    with pytest.raises(LabelError, match=said):
        run(tmp_path / "x.csv", tmp_path / "r", *more)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("row", "more", "said"),
    [
        ("0 1 " * 20, ("sampling.count=1",), r"sampling.count = 1: wanted 2 haplotypes or more"),
        (
            "0 " * 38 + "1 1",
            (),
            r"x.haps: the 8 haplotypes of the test set are all the same at these 1 variants",
        ),
    ],
)
def test_haplotypes_that_cannot_be_judged_are_refused_before_training(tmp_path, row, more, said):
    (tmp_path / "x.haps").write_text(f"20 v 100 A G {row}\n")
    with pytest.raises(LabelError, match=said):
        run(tmp_path / "x.haps", tmp_path / "r", "task.kind=generation", *more)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        (("task.kind=naming",), ConfigError, r"task.kind = 'naming': wanted one of classification"),
        (("run.epoch=3",), ConfigError, r"unknown key 'run.epoch'"),
        (("task.classes=['no']",), ValueError, r"label 'yes' is not one of the classes no"),
        (
            ("task.classes=['no', 'yes', 'maybe']",),
            LabelError,
            r"class 'maybe' is empty: no training row has it",
        ),
        (("task.class_weights=[1.0]",), LabelError, r"wanted 2 positive numbers"),
        (("data.number_columns=['x']",), LabelError, r"data.number_columns is for regression"),
        (("split.kind=block",), LabelError, r"has no positions of its sequences"),
        (("model.max_len=8",), LabelError, r"motif.csv:2: 24 bases; this model with this template takes 10"),
        (("task.species=martian",), ValueError, r"species 'martian'"),
        (("start.path='nowhere'",), FileNotFoundError, r"nowhere"),
        (("task.balanced=true", "task.class_weights=[1.0, 2.0]"), ConfigError, "wanted one of them"),
        (("run.micro_batch_size=3",), ConfigError, "does not divide"),
    ],
)
def test_bad_settings_are_refused_before_any_work(tmp_path, more, error, said):
    table = write_motif_table(tmp_path, 20)
    with pytest.raises(error, match=said):
        run(table, tmp_path / "r", *more)
    assert not (tmp_path / "r").exists()


def test_class_weights_reach_the_loss(tmp_path):
    table = write_motif_table(tmp_path, 20)
    job = module.FinetuneRun(config_for(table, "task.class_weights=[1.0, 3.0]"), 0)
    assert set(zip(job.train.targets.tolist(), job.train.weights.tolist(), strict=True)) == {
        (0, 1.0),
        (1, 3.0),
    }
    balanced = module.FinetuneRun(config_for(table, "task.balanced=true"), 0)
    totals = [balanced.train.weights[balanced.train.targets == c].sum() for c in (0, 1)]
    assert totals[0] == pytest.approx(totals[1])
    assert sum(totals) == pytest.approx(len(balanced.train))
