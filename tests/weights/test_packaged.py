"""Packaged models: loaded by name, checked against their hash; tested with a small model in the compact form."""

import hashlib
import json

import pytest
import torch

from dnagpt_fast.cli import main
from dnagpt_fast.finetune.settings import load_finetune_config
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import Vocabulary
from dnagpt_fast.weights import packaged
from dnagpt_fast.weights.forms import load_model, load_pretrained, save_compact
from dnagpt_fast.weights.official import CheckpointError
from dnagpt_fast.weights.unique_rows import whole_shapes, with_repeats, without_repeats

NAME = "stand_in"


def small_model() -> tuple[DNAGPT, KmerTokenizer]:
    """A model of k = 2 whose head has equal rows from row 40 on."""
    torch.manual_seed(0)
    vocabulary = Vocabulary(2)
    model = DNAGPT(len(vocabulary), max_len=16, num_layers=1, num_heads=2, embedding_dim=8)
    with torch.no_grad():
        model.mlm_head[3].weight[40:] = model.mlm_head[3].weight[40].clone()
    return model, KmerTokenizer.of(vocabulary)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    models = tmp_path / "models"
    models.mkdir()
    save_compact(*small_model(), models / f"{NAME}.safetensors")
    digest = hashlib.sha256((models / f"{NAME}.safetensors").read_bytes()).hexdigest()
    (models / f"{NAME}.json").write_text(json.dumps({"about": "a stand-in", "sha256": digest}))
    monkeypatch.setattr(packaged.packaged_models, "__defaults__", (models,))
    monkeypatch.chdir(tmp_path)
    return models


def test_repeated_rows_are_stored_once():
    table = torch.randn(50, 3)
    table[[7, 9, 30]] = table[7].clone()
    state = {"a": table, "b": torch.arange(4.0)}
    packed = without_repeats(state, ["a"])
    assert packed["a.rows"].shape == (48, 3)
    assert torch.equal(packed["a.rows"][:8], table[:8])  # in the order of their first occurrence
    whole, shapes = with_repeats(packed), whole_shapes(packed)
    assert whole.keys() == shapes.keys() == state.keys()
    assert all(torch.equal(whole[name], tensor) for name, tensor in state.items())
    assert all(shapes[name].shape == tensor.shape for name, tensor in state.items())
    assert shapes["a"].is_meta


def test_a_compact_file_is_the_model_rounded_to_bfloat16(folder):
    model, _ = small_model()
    loaded, tokenizer = load_pretrained(NAME)
    assert tokenizer.vocabulary == Vocabulary(2)
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.to(torch.bfloat16).float()), name
    assert load_pretrained(NAME, dtype=torch.bfloat16)[0].mlm_head[3].weight.dtype == torch.bfloat16


def test_the_name_is_accepted_for_a_model(folder, tmp_path, capsys):
    by_name, _ = load_model(NAME)
    by_file, _ = load_model(folder / f"{NAME}.safetensors")
    assert all(map(torch.equal, by_name.state_dict().values(), by_file.state_dict().values()))
    (tmp_path / "x.fa").write_text(">a\nACGTACGTAC\n")
    with pytest.raises(SystemExit) as caught:
        main(["score", NAME, "x.fa", "--device", "cpu"])
    assert caught.value.code in (0, None)
    assert capsys.readouterr().out.splitlines()[-1].startswith("a\t")
    config = load_finetune_config(
        None, [f"start.path={NAME}", "data.path=rows.csv", "task.kind=classification"]
    )
    assert config.start.path == NAME


def test_a_file_of_the_same_name_takes_precedence(folder, tmp_path):
    other, tokenizer = small_model()
    with torch.no_grad():
        other.mlm_head[3].weight.zero_()
    save_compact(other, tokenizer, tmp_path / NAME)
    assert not load_model(NAME)[0].mlm_head[3].weight.any()
    assert load_pretrained(NAME)[0].mlm_head[3].weight.any()


def test_models_are_listed(folder, capsys):
    with pytest.raises(SystemExit):
        main(["models"])
    assert capsys.readouterr().out == f"{NAME}  a stand-in  (0.0 MB)\n"


def test_a_wrong_name_lists_the_right_ones(folder):
    with pytest.raises(FileNotFoundError, match=f"no packaged model 'standin': this build has {NAME}"):
        load_pretrained("standin")
    with pytest.raises(
        FileNotFoundError, match=f"standin is no file, no folder and no packaged model: .*{NAME}"
    ):
        load_model("standin")


def test_a_build_without_models_says_so(folder, capsys):
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="this build has none"):
        load_pretrained(NAME)
    with pytest.raises(SystemExit) as caught:
        main(["models"])
    assert caught.value.code == 1
    assert "has none" in capsys.readouterr().err


def test_a_damaged_or_missing_file_is_refused(folder):
    path = folder / f"{NAME}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="has SHA-256"):
        load_pretrained(NAME)
    path.unlink()
    with pytest.raises(CheckpointError, match="is missing: reinstall"):
        load_model(NAME)
