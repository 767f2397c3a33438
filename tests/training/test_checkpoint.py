"""Checkpoints: whole or absent, the newest kept, damage seen."""

import json

import pytest
import torch
from torch import nn

from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.optimizer import build_optimizer


def trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    optimizer = build_optimizer(model, lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    model(torch.arange(7)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    model, optimizer = trained(1)
    saved = checkpoint.save(tmp_path, 12, model, optimizer, {"settings": {"a": 1}}, keep=3)
    other, other_optimizer = trained(2)
    found = checkpoint.newest(tmp_path)
    assert found == saved
    assert (found.step, found.config()) == (12, {"settings": {"a": 1}})
    found.load(other, other_optimizer)
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    before, after = optimizer.state_dict(), other_optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    for key, state in before["state"].items():
        assert all(torch.equal(state[name], after["state"][key][name]) for name in state)


def test_the_newest_stay(tmp_path):
    model, optimizer = trained(1)
    for step in (9, 10, 100_000_000, 11):
        checkpoint.save(tmp_path, step, model, optimizer, {}, keep=2)
    assert [found.step for found in checkpoint.complete(tmp_path)] == [11, 100_000_000]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000011",
        "step-100000000",
    ]


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoint.save(tmp_path, 5, *trained(1), {}, keep=2)
    model, optimizer = trained(2)
    checkpoint.save(tmp_path, 5, model, optimizer, {}, keep=2)
    other, _ = trained(3)
    checkpoint.newest(tmp_path).load(other)
    assert torch.equal(other[1].weight, model[1].weight)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "config.json", "state.json"])
@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_a_damaged_checkpoint_is_passed_over_and_told(tmp_path, name, harm):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, *trained(step), {"settings": {}}, keep=5)
    victim = tmp_path / "checkpoints" / "step-00000002" / name
    if harm == "removed":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-3])
    assert checkpoint.newest(tmp_path).step == 1
    (told,) = checkpoint.damaged(tmp_path)
    assert "step-00000002" in told
    assert name in told


def test_an_interrupted_write_hides_nothing_and_is_swept_away(tmp_path):
    checkpoint.save(tmp_path, 3, *trained(1), {}, keep=5)
    leftover = tmp_path / "checkpoints" / "tmp-step-00000004"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert checkpoint.newest(tmp_path).step == 3
    assert not leftover.exists()


def test_a_full_disk_leaves_the_older_checkpoints(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, *trained(1), {}, keep=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 2, *trained(2), {}, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_weights_of_another_model_are_refused(tmp_path):
    checkpoint.save(tmp_path, 1, *trained(1), {}, keep=1)
    with pytest.raises(checkpoint.CheckpointError, match=r"(?s)does not fit this model.*size mismatch"):
        checkpoint.newest(tmp_path).load(nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 3)))


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.newest(tmp_path) is None


def test_state_names_every_file(tmp_path):
    path = checkpoint.save(tmp_path, 1, *trained(1), {}, keep=1).path
    sizes = json.loads((path / "state.json").read_text())["bytes"]
    assert sizes == {file.name: file.stat().st_size for file in path.iterdir() if file.name != "state.json"}
