"""Models on disk: every form is converted to every form, and damaged files are refused."""

import importlib
import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.training.checkpoint_writer import CheckpointWriter
from dnagpt_fast.weights.forms import FORMS, convert, form_of, load_model, save_model
from dnagpt_fast.weights.official import CheckpointError
from tests.tiny import NAMES, load_tiny

pytest.importorskip("transformers", reason="the Hugging Face form needs the extra [hf]")


@pytest.fixture(params=NAMES)
def tiny(request):
    return load_tiny(request.param)


def written(tiny, tmp_path, form):
    path = tmp_path / f"first.{form}"
    save_model(tiny.model(), KmerTokenizer(3), path, form)
    return path


@pytest.mark.parametrize("target", FORMS)
@pytest.mark.parametrize("source", FORMS)
def test_every_form_to_every_form_and_back_bit_for_bit(tiny, tmp_path, source, target):
    first = written(tiny, tmp_path, source)
    assert form_of(first) == source
    heads = tiny.config.num_heads
    convert(first, tmp_path / "second", target, num_heads=heads)
    assert form_of(tmp_path / "second") == target
    convert(tmp_path / "second", tmp_path / "third", source, num_heads=heads)
    for path in (tmp_path / "second", tmp_path / "third"):
        model, tokenizer = load_model(path, num_heads=heads)
        assert model.config == tiny.config
        assert (tokenizer.k, tokenizer.dynamic_kmer) == (3, True)
        state = model.state_dict()
        assert state.keys() == tiny.state.keys()
        assert all(state[name].equal(tiny.state[name]) for name in state)
    assert not list(tmp_path.glob(".*"))


def test_one_safetensors_file_describes_itself(tiny, tmp_path):
    """Three heads are not a published shape and 3-mers not a published vocabulary: neither must be given."""
    convert(written(tiny, tmp_path, "folder"), tmp_path / "one.safetensors", "safetensors")
    model, tokenizer = load_model(tmp_path / "one.safetensors")
    assert (model.config, tokenizer.k) == (tiny.config, 3)
    assert load_file(tmp_path / "one.safetensors").keys() == tiny.state.keys()
    save_file(tiny.state, tmp_path / "bad.safetensors", metadata={"dnagpt": '{"model": 3}'})
    with pytest.raises(
        CheckpointError, match=r"bad\.safetensors: part 'dnagpt' of its header cannot be read"
    ):
        load_model(tmp_path / "bad.safetensors")


def test_dtypes_are_kept(tiny, tmp_path):
    save_model(tiny.model().bfloat16(), KmerTokenizer(3), tmp_path / "a.pth", "official")
    for form in FORMS:
        convert(tmp_path / "a.pth", tmp_path / form, form, num_heads=tiny.config.num_heads)
        model, _ = load_model(tmp_path / form, num_heads=tiny.config.num_heads)
        assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}


def test_the_newest_checkpoint_of_a_run_is_its_model(tmp_path):
    config = ModelConfig(vocab_size=159, max_len=16, num_layers=1, num_heads=2, embedding_dim=8)
    record = {"format": 1, "model": config.to_dict(), "vocabulary": {"k": 3, "dynamic": False}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    models = []
    for step in (3, 12):
        torch.manual_seed(step)
        models.append(DNAGPT.from_config(config))
        optimizer = torch.optim.AdamW(models[-1].parameters())
        with CheckpointWriter(tmp_path, keep=2) as writer:
            writer.save(step, models[-1], optimizer, record)
    for path, wanted in ((tmp_path, models[1]), (tmp_path / "checkpoints" / "step-00000003", models[0])):
        model, tokenizer = load_model(path)
        assert not tokenizer.dynamic_kmer
        assert all(value.equal(wanted.state_dict()[name]) for name, value in model.state_dict().items())
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(
        CheckpointError, match=r"has no model\.safetensors and no checkpoint: .* holds no complete checkpoint"
    ):
        load_model(tmp_path)


def test_a_safetensors_file_alone_and_a_sharded_folder(tiny, tmp_path):
    save_file(tiny.state, tmp_path / "all.safetensors")
    model, _ = load_model(tmp_path / "all.safetensors", num_heads=tiny.config.num_heads)
    assert model.config == tiny.config
    folder = written(tiny, tmp_path, "hf")
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for part, members in parts.items():
        save_file({name: tensors[name] for name in members}, folder / part)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {name: part for part, members in parts.items() for name in members}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_model(folder)[0].state_dict().keys() == tiny.state.keys()


def mutate_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


MUTATIONS = {
    "missing": (
        lambda f: mutate_weights(f, lambda t: t.pop("mlm_head.0.weight")),
        r"missing: mlm_head\.0\.weight",
    ),
    "extra": (
        lambda f: mutate_weights(f, lambda t: t.update({"score.weight": torch.ones(2)})),
        r"unexpected: score\.weight",
    ),
    "shape": (
        lambda f: mutate_weights(f, lambda t: t.update({"mlm_head.0.weight": torch.ones(2)})),
        r"wrong shape: mlm_head\.0\.weight is \(2,\)",
    ),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        "cannot be read as safetensors",
    ),
    "no json": (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
    "no object": (lambda f: (f / "config.json").write_text("[]"), "holds list"),
    "foreign": (
        lambda f: (f / "config.json").write_text('{"model_type": "gpt2"}'),
        "is not of a DNAGPT model",
    ),
}


@pytest.mark.parametrize("form", ["folder", "hf"])
@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_mutated_folder_is_refused_by_name(tiny, tmp_path, form, kind):
    mutate, message = MUTATIONS[kind]
    folder = written(tiny, tmp_path, form)
    mutate(folder)
    with pytest.raises(CheckpointError, match=message) as error:
        load_model(folder)
    assert str(folder) in str(error.value)


def test_nothing_is_overwritten_and_no_half_is_left(tiny, tmp_path, monkeypatch):
    path = written(tiny, tmp_path, "folder")
    with pytest.raises(FileExistsError, match="there already"):
        save_model(tiny.model(), KmerTokenizer(3), path, "folder")
    with pytest.raises(ValueError, match="form 'onnx'"):
        save_model(tiny.model(), KmerTokenizer(3), tmp_path / "x", "onnx")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("dnagpt_fast.weights.forms.write_safetensors", broken)
    with pytest.raises(OSError, match="disk full"):
        save_model(tiny.model(), KmerTokenizer(3), tmp_path / "y", "folder")
    assert list(tmp_path.iterdir()) == [path]


def test_without_transformers_the_error_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("dnagpt_fast.hub")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'dnagpt-fast\[hf\]'"):
        importlib.import_module("dnagpt_fast.hub")


def test_an_adapter_is_not_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds a PEFT adapter, .* merge it into its base model first"):
        load_model(tmp_path)
