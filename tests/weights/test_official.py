"""Published checkpoints: every form loads, and damaged or malicious files are refused."""

import re

import pytest
import torch

from dnagpt_fast import CheckpointError, load_official
from tests.tiny import NAMES, load_tiny


@pytest.fixture(params=NAMES)
def tiny(request):
    return load_tiny(request.param)


FORMS = {
    "bare": lambda state: state,
    "under model": lambda state: {"model": state, "epoch": 3},
    "module prefix": lambda state: {f"module.{name}": value for name, value in state.items()},
    "both": lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_loads(tiny, form, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(FORMS[form](tiny.state), path)
    model, tokenizer = load_official(path, num_heads=tiny.config.num_heads)
    assert model.config == tiny.config
    assert len(tokenizer) == tiny.config.vocab_size
    assert not model.training
    with torch.no_grad():
        assert model(tiny.golden["ids"]).equal(tiny.model()(tiny.golden["ids"]))


MUTATIONS = {
    "missing": (
        lambda s: s.pop("transformer.h.1.mlp.c_fc.weight"),
        "missing: transformer.h.1.mlp.c_fc.weight",
    ),
    "extra": (lambda s: s.update({"cls_head.weight": torch.ones(2)}), "unexpected: cls_head.weight"),
    "shape": (
        lambda s: s.update({"mlm_head.0.weight": torch.ones(3, 4)}),
        r"wrong shape: mlm_head.0.weight is \(3, 4\)",
    ),
    "no embedding": (lambda s: s.pop("transformer.wte.weight"), "no tensor transformer.wte.weight"),
    "no blocks": (lambda s: [s.pop(k) for k in list(s) if ".h." in k], r"no tensor transformer.h.0"),
    "whole layer": (lambda s: [s.pop(k) for k in list(s) if ".h.0." in k], "missing: transformer.h.0.attn"),
}


@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_mutated_checkpoint_is_refused_by_name(tiny, kind, tmp_path):
    mutate, message = MUTATIONS[kind]
    state = dict(tiny.state)
    mutate(state)
    path = tmp_path / "model.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=message) as error:
        load_official(path, num_heads=tiny.config.num_heads)
    assert str(path) in str(error.value)


def test_a_truncated_or_foreign_file_is_refused(tiny, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(tiny.state, path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b"", b"not a checkpoint"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            load_official(path, num_heads=4)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="no state dict"):
        load_official(path)
    with pytest.raises(FileNotFoundError, match="absent"):
        load_official(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    "start", [b">chr1\nACGT\n", b"##fileformat=VCFv4.2\n", b"\x1f\x8b\x08\x00", b"\x43\x27\x41\x1a"]
)
def test_sequences_in_the_place_of_a_model_are_named(tmp_path, start):
    (tmp_path / "x.fa").write_bytes(start)
    with pytest.raises(CheckpointError, match=r"x\.fa is no model: it begins as FASTA"):
        load_official(tmp_path / "x.fa")


class Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


def test_code_in_a_checkpoint_does_not_run(tmp_path, capsys):
    path = tmp_path / "model.pth"
    torch.save({"model": Malicious()}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_official(path)
    assert "code ran" not in capsys.readouterr().out


def test_num_heads_must_be_given_for_an_unpublished_shape(tiny, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(tiny.state, path)
    with pytest.raises(CheckpointError, match="give num_heads"):
        load_official(path)
    with pytest.raises(CheckpointError, match="multiple of num_heads"):
        load_official(path, num_heads=5)


def test_not_strict_loads_the_tensors_that_exist(tiny, tmp_path):
    state = dict(tiny.state)
    gone = "num_regression.0.weight"
    state.pop(gone)
    state["cls_head.weight"] = torch.ones(2)
    path = tmp_path / "model.pth"
    torch.save(state, path)
    model, _ = load_official(path, num_heads=tiny.config.num_heads, strict=False)
    for name, value in model.state_dict().items():
        assert name == gone or value.equal(tiny.state[name])
