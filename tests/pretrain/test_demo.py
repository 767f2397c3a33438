"""A short demonstration: the packaged settings run, and a sequence is generated."""

import json

import pytest

from dnagpt_fast.model.initial_values import model_shape
from dnagpt_fast.pretrain.demo import DEMO_CONFIG, free_folder, sample_bases
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.vocab import Vocabulary
from tests.pretrain.runs import start


def test_the_packaged_settings_are_a_dnagpt_with_its_own_vocabulary():
    config = load_config(DEMO_CONFIG)
    assert model_shape(config.model, Vocabulary()).vocab_size == 19_564
    assert config.data.genomes[0].held_out


def test_three_steps_of_the_demo(tmp_path):
    short = ("run.steps=3", "run.batch_size=4", "schedule.warmup_steps=1", "validation.max_windows=4")
    process = start(
        "pretrain",
        "--demo",
        "--out",
        str(tmp_path / "demo"),
        *(word for text in short for word in ("--set", text)),
    )
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 0, output
    assert "order-5 Markov chain" in output
    header = next(line for line in output.splitlines() if line.startswith(">"))
    assert "bp, GC 0." in header
    report = json.loads((tmp_path / "demo" / "validation.json").read_text())
    assert report["windows"] == 4
    assert {"loss.png", "loss.svg", "metrics.jsonl", "config.json", "checkpoints"} <= {
        p.name for p in (tmp_path / "demo").iterdir()
    }


def test_a_folder_that_is_taken_is_left_alone(tmp_path):
    assert free_folder(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert free_folder(tmp_path / "a") == tmp_path / "a-3"


def test_bases_are_drawn_from_the_model_and_a_seed_repeats_them():
    import torch

    from dnagpt_fast.model.dnagpt import DNAGPT

    vocabulary = Vocabulary(2)
    model = DNAGPT(len(vocabulary), max_len=16, num_layers=1, num_heads=1, embedding_dim=8)
    with torch.no_grad():  # only AC and the reserved token R are likely: R is no base
        model.mlm_head[3].weight.zero_()
        model.mlm_head[3].bias.fill_(-50.0)
        model.mlm_head[3].bias[[21, vocabulary.kmer_id("AC")]] = 50.0
    state = torch.get_rng_state()
    bases = sample_bases(model, vocabulary, "human", 14, seed=1)
    assert set(bases.replace("AC", "")) == set()
    assert 0 < len(bases) < 28
    assert sample_bases(model, vocabulary, "human", 14, seed=1) == bases
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain"], "wanted the folder of the run"),
        (["pretrain", "--demo", "--config", "x.toml"], "has its own settings"),
        (["pretrain", "--out", "OUT", "--sed", "a=1"], "No such option"),
        (["pretrain", "--out", "OUT", "--set", "run.step=1"], "unknown key 'run.step'"),
        (["pretrain", "--out", "OUT"], "names no genome"),
        (["pretrain", "--out", "OUT", "--resume"], "holds no run: it has no config"),
        (["pretrain", "--out", "OUT", "--config", "OUT/none.toml"], "none.toml"),
    ],
)
def test_impossible_command_lines(tmp_path, arguments, message, capsys):
    from dnagpt_fast.cli import main

    with pytest.raises(SystemExit) as caught:
        main([word.replace("OUT", str(tmp_path / "run")) for word in arguments])
    assert caught.value.code in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_doctor_finds_no_problem_here():
    process = start("doctor")
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 0, output
    assert "op combined_loss" in output
    assert "FAIL" not in output


def test_doctor_names_the_remedy_for_a_missing_build(monkeypatch):
    import builtins

    from dnagpt_fast.cli import doctor

    original = builtins.__import__

    def without_ops(name, *arguments, **keywords):
        if name == "dnagpt_fast.ops" and "compiled" in (arguments[2] or ()):
            raise ImportError("build it with `pip install .`")
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_ops)
    monkeypatch.setattr(
        doctor, "version", lambda name: (_ for _ in ()).throw(doctor.PackageNotFoundError(name))
    )
    findings = {finding.what: finding for finding in doctor.examine()}
    assert not findings["compiled kernels"].ok
    assert "pip install ." in findings["compiled kernels"].message
    assert findings["torch"].message == "missing: pip install torch"
