"""Runs, checkpoints and exports written by an earlier layout of the package still load and can be resumed."""

import tarfile
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dnagpt_fast.finetune.predict import load_finetuned, predict
from dnagpt_fast.finetune.run import finetune
from dnagpt_fast.finetune.settings import load_finetune_config
from dnagpt_fast.pretrain.run import load_run, pretrain
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.log import read_metrics
from dnagpt_fast.weights.forms import load_model

ARCHIVE = Path(__file__).parents[1] / "data" / "runs_before_the_rooms.tar.xz"
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written_before")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_every_form_of_the_pretrained_model_holds_the_same_tensors(written):
    model, tokenizer = load_model(written / "pretrained")
    wanted = model.state_dict()
    assert tokenizer.k == 1
    for name in ("folder", "hf", "official", "safetensors"):
        heads = 1 if name == "official" else None
        other, its = load_model(written / f"export_{name}", num_heads=heads)
        assert its.vocabulary == tokenizer.vocabulary
        assert other.state_dict().keys() == wanted.keys()
        for key, tensor in other.state_dict().items():
            assert torch.equal(tensor, wanted[key]), key


def test_the_runs_load_with_their_records(written):
    _, vocabulary, record = load_run(written / "pretrained")
    assert (vocabulary.k, record["kind"], record["format"]) == (1, "pretrain", 1)
    _, language, record = load_finetuned(written / "tuned")
    assert (language.classes, record["kind"]) == (("no", "yes"), "finetune")
    for run, step in (("pretrained", 6), ("tuned", 6)):
        found, left_out = checkpoint.examine(written / run)
        assert (found.step, left_out) == (step, [])
        assert len(read_metrics(written / run)) == 6


def test_the_tuned_model_answers_as_it_did(written, tmp_path):
    """predictions.tsv has its predictions for the last six rows of the table, to six digits."""
    settings = load_finetune_config(
        written / "tuned" / "config.json", [f"data.path={written / 'labels.csv'}"]
    )
    found, language = predict(written / "tuned", settings.data, tmp_path / "out.tsv", device="cpu")
    lines = (written / "tuned" / "predictions.tsv").read_text().splitlines()
    column = lines[0].split("\t").index("p_yes")
    before = [float(line.split("\t")[column]) for line in lines[1:]]
    assert len(before) == 6
    assert language.classes[1] == "yes"
    assert found.values[-6:, 1].tolist() == pytest.approx(before, abs=2e-6)


def test_the_tuned_run_continues_where_it_ended(written):
    """The paths of its start model and its data no longer exist."""
    config = load_finetune_config(written / "tuned" / "config.json", [f"data.path={written / 'labels.csv'}"])
    (outcome,) = finetune(config, written / "tuned", resume=True, console=QUIET)
    assert (outcome.steps, outcome.stopped_by) == (6, None)


def test_the_pretrained_run_continues_where_it_ended(written):
    config = load_config(written / "pretrained" / "config.json", [
        f'data.genomes=[{{path="{written / "genome.fa"}", species="human", held_out=["one:600-800"]}}]'
    ])  # fmt: skip
    outcome = pretrain(config, written / "pretrained", resume=True, console=QUIET)
    assert (outcome.steps, outcome.stopped_by) == (6, None)
