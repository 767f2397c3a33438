"""Untrusted files: no code in them runs, and they are refused quickly and with little memory."""

import io
import json
import os
import pickle
import resource
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dnagpt_fast.input_files import sha256_of
from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.training import checkpoint, checkpoint_files
from dnagpt_fast.training.checkpoint import CheckpointError
from dnagpt_fast.training.checkpoint_writer import CheckpointWriter
from dnagpt_fast.training.optimizer import build_optimizer
from dnagpt_fast.weights.forms import load_model, save_compact, save_model
from dnagpt_fast.weights.start import resumed_model
from tests.training.test_checkpoint import trained

MOST_MIB = 200


class Runs:
    """Unpickled without care, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def mark(tmp_path):
    """The file that hostile code would make; the test fails if it exists at the end."""
    path = tmp_path / "code-ran"
    yield path
    assert not path.exists()


def write_run(folder: Path) -> Path:
    """A run folder with one checkpoint of a model of three blocks."""
    config = ModelConfig(len(KmerTokenizer(2)), max_len=8, num_layers=3, num_heads=1, embedding_dim=4)
    model = DNAGPT.from_config(config)
    optimizer = build_optimizer(model, lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    record = {
        "format": 1,
        "kind": "pretrain",
        "model": config.to_dict(),
        "vocabulary": {"k": 2, "dynamic": True},
    }
    with CheckpointWriter(folder, 3) as writer:
        writer.save(1, model, optimizer, record)
    return checkpoint.newest(folder).path


def resign(path: Path) -> None:
    """state.json as an attacker would write it for other files."""
    files = [file for file in sorted(path.iterdir()) if file.name != "state.json"]
    state = {
        "step": 1,
        "bytes": {file.name: file.stat().st_size for file in files},
        "sha256": {file.name: sha256_of(file) for file in files},
    }
    (path / "state.json").write_text(json.dumps(state))


def refused_quickly(load, match: str) -> None:
    """The error is a CheckpointError that names a file, within two seconds and MOST_MIB of memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=match) as caught:
        load()
    # Also on a machine with other work.
    assert time.monotonic() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MIB * 1024
    assert "weights_only" not in str(caught.value)


def test_the_demonstration_is_one(tmp_path, mark):
    """The code that the other tests prevent does run without protection."""
    pickle.loads(pickle.dumps(Runs(mark)))
    assert mark.exists()
    mark.unlink()


def test_metadata_with_code_runs_nothing(tmp_path, mark):
    path = write_run(tmp_path / "run")
    (path / ".metadata").write_bytes(pickle.dumps(Runs(mark)))
    resign(path)
    refused_quickly(lambda: load_model(tmp_path / "run"), r"asks for posix\.system; no code of it was run")
    refused_quickly(lambda: checkpoint.newest(tmp_path / "run").load(trained(1)[0]), r"posix\.system")


def test_code_between_the_optimizers_numbers_runs_nothing(tmp_path, mark):
    """They lie in .distcp as pickles of their own, which torch's planner would run when a run is resumed."""
    model, optimizer = trained(1)
    with CheckpointWriter(tmp_path / "run", 3) as writer:
        writer.save(1, model, optimizer, {})
    path = checkpoint.newest(tmp_path / "run").path
    found = checkpoint_files.read_metadata(path)
    evil = io.BytesIO()
    torch.save(Runs(mark), evil)
    index = next(index for index in found.storage_data if "param_groups" in index.fqn and "lr" in index.fqn)
    with open(path / "__0_0.distcp", "ab") as file:
        found.storage_data[index].offset = file.tell()
        found.storage_data[index].length = len(evil.getvalue())
        file.write(evil.getvalue())
    (path / ".metadata").write_bytes(pickle.dumps(found))
    resign(path)
    refused_quickly(
        lambda: checkpoint.newest(tmp_path / "run").load(model, optimizer), "no code of it was run"
    )


@pytest.mark.parametrize("kind", ["zip", "legacy", "raw"])
def test_code_in_published_files_does_not_run_and_no_message_advises_it(tmp_path, mark, kind):
    path = tmp_path / "model.pth"
    if kind == "raw":
        path.write_bytes(pickle.dumps({"model": Runs(mark)}))
    else:
        torch.save({"model": Runs(mark)}, path, _use_new_zipfile_serialization=kind == "zip")
    refused_quickly(lambda: load_model(path), "no code of it was run")


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (pickle.PROTO + b"\x05" + pickle.LONG_BINPUT + b"\xff\xff\xff\x7f", "damaged"),
        (
            pickle.PROTO + b"\x05" + pickle.BYTEARRAY8 + b"\xff\xff\xff\xff\x00\x00\x00\x00",
            "no checkpoint has",
        ),
        (pickle.PROTO + b"\x05" + pickle.BINUNICODE8 + b"\xff\xff\xff\xff\x00\x00\x00\x00", "damaged"),
        (pickle.MARK * 100_000, "damaged"),
        (b"ctorch\nload\n.", r"asks for torch\.load"),
        (b"cbuiltins\neval\n.", r"asks for builtins\.eval"),
        (b"ctorch.distributed.checkpoint.metadata\nMetadata\nN}Vx\nVy\ns\x86b.", "changes a class"),
        (pickle.dumps([1, 2]), "damaged"),
    ],
)
def test_pickles_that_claim_more_than_they_have_are_refused(tmp_path, harm, match):
    path = write_run(tmp_path / "run")
    (path / ".metadata").write_bytes(harm)
    resign(path)
    refused_quickly(lambda: load_model(tmp_path / "run"), match)


@pytest.mark.parametrize("harm", ["size", "chunk", "offset", "outside"])
def test_metadata_that_names_more_than_the_files_have_is_refused(tmp_path, harm):
    path = write_run(tmp_path / "run")
    found = checkpoint_files.read_metadata(path)
    name = "model.transformer.wte.weight"
    index, place = next((i, p) for i, p in found.storage_data.items() if i.fqn == name)
    entry = found.state_dict_metadata[name]
    if harm == "size":
        entry.size = torch.Size([1 << 40, 4])
    elif harm == "chunk":
        entry.size = entry.chunks[0].sizes = torch.Size([1 << 40, 4])
    elif harm == "offset":
        place.offset = 1 << 50
    else:
        place.relative_path = "../../../../etc/passwd"
    assert index in found.storage_data
    (path / ".metadata").write_bytes(pickle.dumps(found))
    resign(path)
    refused_quickly(lambda: load_model(tmp_path / "run"), "says that|does not have|outside")


@pytest.mark.parametrize("form", ["run", "folder", "hf", "safetensors", "official"])
def test_ten_million_layers_are_refused_before_one_is_built(tmp_path, form):
    many = 10**7
    path = write_run(tmp_path / "run")
    if form == "run":
        record = json.loads((path / "config.json").read_text())
        record["model"]["num_layers"] = many
        (path / "config.json").write_text(json.dumps(record))
        resign(path)
        refused_quickly(lambda: load_model(tmp_path / "run"), "num_layers is 10000000, but it holds 3 blocks")
        return
    model, tokenizer = load_model(path)
    if form == "official":
        torch.save(
            {**model.state_dict(), f"transformer.h.{'9' * 5000}.x": torch.zeros(1)}, tmp_path / "far.pth"
        )
        refused_quickly(
            lambda: load_model(tmp_path / "far.pth", num_heads=1), r"no tensor transformer\.h\.3\."
        )
        return
    if form == "safetensors":
        about = {
            "model": {**model.config.to_dict(), "num_layers": many},
            "vocabulary": {"k": 2, "dynamic": True},
        }
        save_file(model.state_dict(), tmp_path / "a.safetensors", {"dnagpt": json.dumps(about)})
        refused_quickly(lambda: load_model(tmp_path / "a.safetensors"), "num_layers is 10000000")
        return
    save_model(model, tokenizer, tmp_path / form, form)
    config = json.loads((tmp_path / form / "config.json").read_text())
    (config if form == "hf" else config["model"])["num_layers"] = many
    (tmp_path / form / "config.json").write_text(json.dumps(config))
    refused_quickly(lambda: load_model(tmp_path / form), "num_layers is 10000000")


def test_a_tensor_that_has_no_numbers_for_its_shape_is_refused(tmp_path):
    """A view with a stride of 0 needs four bytes in its file, and a million times that when it is copied."""
    model, _ = load_model(write_run(tmp_path / "run"))
    state = model.state_dict()
    state["transformer.wpe.weight"] = torch.zeros(1, 1).expand(1 << 30, 4)
    torch.save(state, tmp_path / "wide.pth")
    refused_quickly(lambda: load_model(tmp_path / "wide.pth", num_heads=1), "the file has fewer numbers")


@pytest.mark.parametrize("kind", ["zip", "legacy", "old name", "encoded"])
def test_a_pickle_that_computes_is_refused(tmp_path, kind):
    """torch's unpickler of weights calls bytearray(10**9) and codecs: twenty bytes could fill the memory."""
    code = {
        "old name": b"\x80\x02}X\x01\x00\x00\x00ac__builtin__\nbytearray\nJ\x00\xca\x9a;\x85Rs.",
        "encoded": b"\x80\x02}X\x01\x00\x00\x00ac_codecs\nencode\nX\x01\x00\x00\x00bX\x03\x00\x00\x00hex\x86Rs.",
    }.get(kind, b"\x80\x02}X\x01\x00\x00\x00acbuiltins\nbytearray\nJ\x00\xca\x9a;\x85Rs.")
    path = tmp_path / "computes.pth"
    torch.save({"a": 1}, path, _use_new_zipfile_serialization=kind == "zip")
    if kind == "zip":
        with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "evil.pth", "w") as evil:
            for name in plain.namelist():
                evil.writestr(name, code if name.endswith("data.pkl") else plain.read(name))
        path = tmp_path / "evil.pth"
    else:
        whole = path.read_bytes()
        start = whole.index(pickle.dumps({"a": 1}, protocol=2))
        path.write_bytes(whole[:start] + code + whole[start:])
    refused_quickly(lambda: load_model(path, num_heads=1), "computed while it is read")


def test_an_archive_with_two_lists_of_entries_is_refused(tmp_path):
    """Python's reader of archives accepts bytes before the archive; torch's could find another list of entries."""
    model, _ = load_model(write_run(tmp_path / "run"))
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    (tmp_path / "two.pth").write_bytes(b"PK\x03\x04" + b"x" * 100 + (tmp_path / "plain.pth").read_bytes())
    refused_quickly(lambda: load_model(tmp_path / "two.pth", num_heads=1), "bytes before or after it")


def test_a_small_file_with_huge_tables_is_refused(tmp_path):
    """A packed table has its distinct rows and one number per row: a few MB could expand to a terabyte."""
    model, tokenizer = load_model(write_run(tmp_path / "run"))
    save_compact(model, tokenizer, tmp_path / "a.safetensors")
    state = load_file(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        header = file.metadata()
    for name, tensor in (
        ("transformer.wte.weight.rows", torch.zeros(1, 100_000)),
        ("transformer.wte.weight.row_of", torch.zeros(2_000_000, dtype=torch.int32)),
    ):
        wrong = {**state, name: tensor}
        save_file(wrong, tmp_path / "wide.safetensors", header)
        refused_quickly(lambda: load_model(tmp_path / "wide.safetensors"), "does not fit|does not have")
    about = json.loads(header["dnagpt"])
    about["model"]["vocab_size"] = 2_000_000
    state["transformer.wte.weight.row_of"] = torch.zeros(2_000_000, dtype=torch.int32)
    save_file(state, tmp_path / "wide.safetensors", {"dnagpt": json.dumps(about)})
    refused_quickly(lambda: load_model(tmp_path / "wide.safetensors"), "vocab_size is 2000000")


def test_a_resumed_model_is_not_built_larger_than_its_checkpoint(tmp_path):
    path = write_run(tmp_path / "run")
    for name, value in (("num_layers", 10**7), ("embedding_dim", 10**6), ("max_len", 10**9)):
        record = json.loads((path / "config.json").read_text())
        record["model"][name] = value
        (path / "config.json").write_text(json.dumps(record))
        resign(path)
        refused_quickly(lambda: resumed_model(checkpoint.newest(tmp_path / "run")), "does not fit the model")


def test_a_compressed_archive_is_refused(tmp_path):
    model, _ = load_model(write_run(tmp_path / "run"))
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name), zipfile.ZIP_DEFLATED)
    refused_quickly(lambda: load_model(tmp_path / "bomb.pth", num_heads=1), "more bytes than the file has")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"model": ' + "9" * 5000 + "}",
        "\0\0\0",
        "[1]",
        '{"model_type": "dnagpt", "num_layers": NaN}',
    ],
)
def test_a_bad_config_names_its_file(tmp_path, text):
    model, tokenizer = load_model(write_run(tmp_path / "run"))
    save_model(model, tokenizer, tmp_path / "folder", "folder")
    (tmp_path / "folder" / "config.json").write_text(text)
    refused_quickly(lambda: load_model(tmp_path / "folder"), r"folder/config\.json")


@pytest.mark.parametrize("places", [["../../secret"], "x", None])
def test_an_index_that_points_outside_is_refused(tmp_path, places):
    model, tokenizer = load_model(write_run(tmp_path / "run"))
    save_model(model, tokenizer, tmp_path / "folder", "folder")
    (tmp_path / "folder" / "model.safetensors").unlink()
    weight_map = {"a": places[0]} if isinstance(places, list) else places
    (tmp_path / "folder" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    refused_quickly(lambda: load_model(tmp_path / "folder"), r"index\.json has no 'weight_map'")
