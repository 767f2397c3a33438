"""Checkpoints: complete or absent, the newest kept, damage detected, written during the training."""

import json
import operator
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint._nested_dict import flatten_state_dict

from dnagpt_fast.training import checkpoint, checkpoint_writer
from dnagpt_fast.training.checkpoint_writer import CheckpointWriter
from dnagpt_fast.training.optimizer import build_optimizer
from tests.pretrain.runs import ROOT

FILES = [".metadata", "__0_0.distcp", "config.json"]


def trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    optimizer = build_optimizer(model, lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    model(torch.arange(7)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def save(run, step, seed, keep=5, config=None) -> nn.Module:
    model, optimizer = trained(seed)
    with CheckpointWriter(run, keep) as writer:
        writer.save(step, model, optimizer, config or {})
    return model


def names(run) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    model, optimizer = trained(1)
    with CheckpointWriter(tmp_path, 3) as writer:
        writer.save(12, model, optimizer, {"settings": {"a": 1}})
    other, other_optimizer = trained(2)
    found = checkpoint.newest(tmp_path)
    assert (found.step, found.config()) == (12, {"settings": {"a": 1}})
    found.load(other, other_optimizer)
    alone = found.weights()
    assert alone.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
        assert torch.equal(alone[name], tensor)
    before, after = optimizer.state_dict(), other_optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    for key, state in before["state"].items():
        assert all(torch.equal(state[name], after["state"][key][name]) for name in state)


def test_the_states_of_one_process_are_torchs(tmp_path, monkeypatch):
    """Made without torch's function, which imports its compiler; with a frozen layer, and with Muon too."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 3).requires_grad_(False))
    for muon in (None, {model[1].weight: 1}):
        optimizer = build_optimizer(model, lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1, muon=muon)
        model(torch.arange(7)).square().sum().backward()
        optimizer.step()
        ours = checkpoint_writer.states_of_one_process(model, optimizer)
        theirs = checkpoint_writer.get_state_dict(model, optimizer)
        for one, other in zip(ours, theirs, strict=True):
            one, other = flatten_state_dict(one)[0], flatten_state_dict(other)[0]
            assert list(one) == list(other)
            for key, value in one.items():
                same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
                assert same(value, other[key]), key
    used = []
    monkeypatch.setattr(checkpoint_writer, "get_state_dict", lambda *given: used.append(1) or theirs)
    monkeypatch.delitem(sys.modules, "torch._dynamo")
    with CheckpointWriter(tmp_path, 3) as writer:
        writer.save(1, model, optimizer, {})
    assert not used


def test_an_optimizer_that_never_stepped_takes_the_state(tmp_path):
    """As in a resumed run: loading creates the moments, without an effect on them or the weights."""
    model, optimizer = trained(1)
    with CheckpointWriter(tmp_path, 3) as writer:
        writer.save(1, model, optimizer, {})
    fresh = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    fresh_optimizer = build_optimizer(fresh, lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    checkpoint.newest(tmp_path).load(fresh, fresh_optimizer)
    for one, two in ((model, optimizer), (fresh, fresh_optimizer)):
        two.zero_grad()
        one(torch.arange(7)).sum().backward()
        two.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


def test_training_continues_while_at_most_one_checkpoint_is_written(tmp_path, monkeypatch):
    """The weights at the return of save() are written, although they change afterwards."""
    may_write, saved = threading.Event(), dcp.FileSystemWriter.write_data
    monkeypatch.setattr(
        dcp.FileSystemWriter, "write_data", lambda *args: (may_write.wait(30), saved(*args))[1]
    )
    model, optimizer = trained(1)
    wanted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with CheckpointWriter(tmp_path, 3) as writer:
        writer.save(1, model, optimizer, {})
        for parameter in model.parameters():
            parameter.data.fill_(7)
        assert checkpoint.newest(tmp_path) is None
        assert not writer.broken
        second = threading.Thread(target=writer.save, args=(2, model, optimizer, {}))
        second.start()
        second.join(0.3)
        assert second.is_alive(), "a second checkpoint was begun before the first was there"
        may_write.set()
        second.join()
    weights = [found.weights() for found in checkpoint.complete(tmp_path)]
    assert all(torch.equal(weights[0][name], wanted[name]) for name in wanted)
    assert all((tensor == 7).all() for tensor in weights[1].values())


def test_the_newest_stay(tmp_path):
    for step in (9, 10, 100_000_000, 11):
        save(tmp_path, step, 1, keep=2)
    assert [found.step for found in checkpoint.complete(tmp_path)] == [11, 100_000_000]
    assert names(tmp_path) == ["step-00000011", "step-100000000"]


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 5, 1, keep=2)
    model = save(tmp_path, 5, 2, keep=2)
    assert torch.equal(checkpoint.newest(tmp_path).weights()["1.weight"], model[1].weight)
    assert names(tmp_path) == ["step-00000005"]


@pytest.mark.parametrize("name", [*FILES, "state.json"])
@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_a_damaged_checkpoint_is_skipped_and_reported(tmp_path, name, harm):
    for step in (1, 2):
        save(tmp_path, step, step)
    victim = tmp_path / "checkpoints" / "step-00000002" / name
    if harm == "removed":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-3])
    assert checkpoint.newest(tmp_path).step == 1
    (message,) = checkpoint.damaged(tmp_path)
    assert "step-00000002" in message
    assert name in message


def test_an_interrupted_write_hides_nothing_and_is_removed_by_the_next_run(tmp_path):
    save(tmp_path, 3, 1)
    leftover = tmp_path / "checkpoints" / "tmp-step-00000004"
    leftover.mkdir()
    (leftover / "__0_0.distcp").write_bytes(b"half")
    # Reading must not remove it: a run may be writing there.
    assert checkpoint.newest(tmp_path).step == 3
    assert leftover.exists()
    with CheckpointWriter(tmp_path, 5):
        assert not leftover.exists()
    assert names(tmp_path) == ["step-00000003"]


@pytest.mark.parametrize("where", ["the shares", "the mark"])
def test_a_full_disk_leaves_the_older_checkpoints(tmp_path, monkeypatch, where):
    save(tmp_path, 1, 1, keep=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    if where == "the shares":
        monkeypatch.setattr(dcp.FileSystemWriter, "write_data", full)
    else:
        monkeypatch.setattr(os, "fsync", full)
    writer = CheckpointWriter(tmp_path, 1)
    writer.save(2, *trained(2), {})
    deadline = time.monotonic() + 30
    while not writer.broken:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(checkpoint.CheckpointError, match="No space left on device"):
        writer.save(3, *trained(2), {})
    assert names(tmp_path) == ["step-00000001"]


def test_a_failure_of_the_training_lets_the_current_checkpoint_finish(tmp_path, monkeypatch):
    def fail(step):
        with CheckpointWriter(tmp_path, 2) as writer:
            writer.save(step, *trained(1), {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(1)
    assert checkpoint.newest(tmp_path).step == 1

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ZeroDivisionError) as caught:
        fail(2)
    assert "No space left" in caught.value.__notes__[0]
    assert names(tmp_path) == ["step-00000001"]


def test_weights_of_another_model_are_refused(tmp_path):
    save(tmp_path, 1, 1)
    with pytest.raises(
        checkpoint.CheckpointError, match=r"does not fit this model: 0\.weight is \(7, 4\) in it, \(8, 4\)"
    ):
        checkpoint.newest(tmp_path).load(nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 3)))


def test_a_checkpoint_that_is_no_pickle_is_an_error(tmp_path):
    save(tmp_path, 1, 1)
    metadata = tmp_path / "checkpoints" / "step-00000001" / ".metadata"
    metadata.write_bytes(b"x" * metadata.stat().st_size)
    assert checkpoint.newest(tmp_path) is None
    with pytest.raises(checkpoint.CheckpointError, match="metadata is damaged"):
        checkpoint.Checkpoint(metadata.parent, 1).weights()


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    with pytest.raises(checkpoint.CheckpointError, match="holds no complete checkpoint"):
        checkpoint.open_checkpoint(tmp_path)


def test_state_names_every_file(tmp_path):
    save(tmp_path, 1, 1)
    path = checkpoint.newest(tmp_path).path
    sizes = json.loads((path / "state.json").read_text())["bytes"]
    assert sizes == {name: (path / name).stat().st_size for name in FILES}


KILLED = """
import os, signal, sys
from pathlib import Path
import torch.distributed.checkpoint as dcp
from dnagpt_fast.training.checkpoint_writer import CheckpointWriter
from tests.training.test_checkpoint import trained

run, write = Path(sys.argv[1]), dcp.FileSystemWriter.write_data

def half(self, *args):
    write(self, *args)
    (victim,) = Path(self.path).glob("*.distcp")
    os.truncate(victim, victim.stat().st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)

with CheckpointWriter(run, 1) as writer:
    writer.save(1, *trained(1), {})
    writer.wait()
    dcp.FileSystemWriter.write_data = half
    writer.save(2, *trained(2), {})
"""


def test_a_process_killed_while_it_writes_leaves_the_last_good_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert names(tmp_path) == ["step-00000001", "tmp-step-00000002"]
    assert checkpoint.newest(tmp_path).step == 1
    model, _ = trained(1)
    assert torch.equal(checkpoint.newest(tmp_path).weights()["1.weight"], model[1].weight)
    save(tmp_path, 2, 2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_changed_bytes_are_noticed_and_the_one_before_is_taken(tmp_path):
    """Damage that keeps the size: a checkpoint's middle flipped, in each of its files."""
    for name in FILES:
        run = tmp_path / name.strip(".")
        model = save(run, 1, 1, config={"a": 1})
        save(run, 2, 2, config={"a": 1})
        victim = run / "checkpoints" / "step-00000002" / name
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
        found, left_out = checkpoint.examine(run)
        assert found.step == 1
        assert len(left_out) == 1
        assert f"step-00000002: the bytes of {name} have changed since it was written" in left_out[0]
        with pytest.raises(checkpoint.CheckpointError, match="is damaged: the bytes of"):
            checkpoint.open_checkpoint(victim.parent)
        assert torch.equal(found.weights()["1.weight"], model[1].weight)


def test_a_checkpoint_is_read_back_before_an_older_one_is_removed(tmp_path, monkeypatch):
    save(tmp_path, 1, 1, keep=1)
    flushed = checkpoint_writer._forget

    def bad_disk(path):
        flushed(path)
        if path.suffix == ".distcp":
            content = bytearray(path.read_bytes())
            content[1000] ^= 1
            path.write_bytes(content)

    monkeypatch.setattr(checkpoint_writer, "_forget", bad_disk)
    with pytest.raises(checkpoint.CheckpointError, match=r"read back from disk, the bytes of __0_0\.distcp"):
        save(tmp_path, 2, 2, keep=1)
    assert names(tmp_path) == ["step-00000001"]


def test_a_folder_that_cannot_be_read_is_an_error_and_not_an_empty_one(tmp_path):
    (tmp_path / "checkpoints").write_text("no folder")
    with pytest.raises(NotADirectoryError):
        checkpoint.newest(tmp_path)


def test_a_checkpoint_without_checksums_is_taken_by_its_sizes(tmp_path):
    save(tmp_path, 1, 1)
    path = tmp_path / "checkpoints" / "step-00000001" / "state.json"
    state = json.loads(path.read_text())
    assert state.pop("sha256").keys() == state["bytes"].keys()
    path.write_text(json.dumps(state))
    assert checkpoint.newest(tmp_path).step == 1


@pytest.mark.parametrize(
    "text", ["", "[]", '{"bytes": 1}', '{"bytes": {".metadata": "x"}}', "[" * 100_000, '{"step": 1}']
)
def test_a_damaged_state_is_a_reason_and_not_an_error(tmp_path, text):
    save(tmp_path, 1, 1)
    (tmp_path / "checkpoints" / "step-00000001" / "state.json").write_text(text)
    found, left_out = checkpoint.examine(tmp_path)
    assert found is None
    assert "step-00000001" in left_out[0]


@pytest.mark.parametrize("name", ["state.json", "config.json", ".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_file_that_is_a_folder_or_a_pipe_is_a_damaged_checkpoint(tmp_path, name, kind):
    """Reading the pipe would wait for ever."""
    for step in (1, 2):
        save(tmp_path, step, seed=step)
    path = tmp_path / "checkpoints" / "step-00000002" / name
    size = path.stat().st_size
    path.unlink()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    state = path.with_name("state.json")
    if state.is_file():
        state.write_text(state.read_text().replace(f'"{name}": {size}', f'"{name}": {path.stat().st_size}'))
    found, left_out = checkpoint.examine(tmp_path)
    assert found.step == 1
    (line,) = left_out
    assert f"{name} is a folder" in line if kind == "folder" else "is a pipe or a device" in line
