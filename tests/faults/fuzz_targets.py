"""The files of tests/faults/fuzz.py, how they are damaged and read: checkpoints, records, logs, weights,
settings."""

import contextlib
import gzip
import io
import json
import pickle
import pickletools
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pysam.bcftools
import torch
from rich.console import Console
from safetensors.torch import save_file

from dnagpt_fast.finetune.data.settings import LabelledDataSettings
from dnagpt_fast.finetune.predict import load_finetuned, predict
from dnagpt_fast.finetune.settings import load_finetune_config
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.fasta import read_fasta
from dnagpt_fast.genome.inventory import contig_counts
from dnagpt_fast.genome.twobit import write_twobit
from dnagpt_fast.model.alleles import AlleleScore
from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.run import FREE_ON_RESUME, _other_contents
from dnagpt_fast.pretrain.settings import PretrainConfig, load_config
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.checkpoint_writer import CheckpointWriter
from dnagpt_fast.training.engine import restore
from dnagpt_fast.training.job_folder import JobFolder
from dnagpt_fast.training.log import MetricsLog, read_metrics
from dnagpt_fast.training.optimizer import build_optimizer
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.row_journal import ROWS, RowJournal
from dnagpt_fast.training.run_folder import settings_of
from dnagpt_fast.training.settings import settings_of_run
from dnagpt_fast.variants.journal import Journal
from dnagpt_fast.variants.vcf import VcfFile
from dnagpt_fast.weights.forms import load_model, save_compact, save_model
from tests.faults.hostile_folder import checkpoint_of, resign
from tests.faults.jobs import make_inputs
from tests.harm import harmed, harmed_text, put
from tests.test_corpus import header_harmed, json_harmed
from tests.variants.cohort import write_vcf_text

Harm = Callable[[random.Random], None]
Read = Callable[[], object]


@dataclass(frozen=True)
class Target:
    """prepare(folder) makes undamaged files, and returns a function that damages and one that reads them.
    weight: the share of the inputs."""

    name: str
    weight: int
    prepare: Callable[[Path], tuple[Harm, Read]]


TARGETS: list[Target] = []


def target(name: str, weight: int) -> Callable[[Callable[[Path], tuple[Harm, Read]]], None]:
    return lambda prepare: TARGETS.append(Target(name, weight, prepare))


def json_or_bytes(chance: random.Random, data: bytes) -> bytes:
    return (json_harmed if chance.randrange(3) else harmed)(chance, data)


# Globals that a pickle may ask for; some compute, some are code.
GLOBALS = (
    "os system", "builtins eval", "builtins bytearray", "_codecs encode", "torch load", "torch Tensor", "torch Size",
    "collections OrderedDict", "collections Counter", "torch FloatStorage", "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_sparse_tensor", "torch._utils _rebuild_parameter", "pathlib PosixPath", "torch float32",
    "torch.distributed.checkpoint.metadata Metadata", "torch.serialization _get_layout",
)  # fmt: skip
NUMBERS = (0, 1, 2, 3, 255, 65535, 2**31 - 1, -1, -(2**31), 10**7, 10**9)


def pickle_harmed(chance: random.Random, data: bytes) -> bytes:
    """Changes one or two operations of a pickle (another number or name, removed, doubled), or bytes."""
    for _ in range(chance.randint(1, 2)):
        if chance.randrange(4) == 0:
            data = harmed(chance, data)
            continue
        try:
            places = [(op, at) for op, _, at in pickletools.genops(data)]
        except Exception:  # noqa: BLE001 harmed already
            return harmed(chance, data)
        i = chance.randrange(len(places) - 1)
        if chance.randrange(2):
            numbers = [
                n
                for n, (op, _) in enumerate(places[:-1])
                if op.name in ("BININT", "BININT1", "BININT2", "GLOBAL")
            ]
            i = chance.choice(numbers) if numbers else i
        (op, at), (_, end) = places[i], places[i + 1]
        new = data[at:end]
        if op.name.startswith("BININT"):
            new = b"J" + struct.pack("<i", chance.choice(NUMBERS))
        elif op.name == "GLOBAL":
            new = b"c" + chance.choice(GLOBALS).replace(" ", "\n").encode() + b"\n"
        elif chance.randrange(2):
            new = b""
        else:
            new = new * 2
        data = data[:at] + new + data[end:]
    return data


def run_and_checkpoint(folder: Path, name: str = "pretrained") -> tuple[Path, Path]:
    make_inputs(folder, sequences=3)
    run = folder / name
    resign(checkpoint_of(run))
    return run, checkpoint_of(run)


def harms(
    path: Path, how: Callable[[random.Random, bytes], bytes], after: Callable[[], object] = lambda: None
) -> Harm:
    data = path.read_bytes()

    def harm(chance: random.Random) -> None:
        put(path, how(chance, data))
        after()

    return harm


@target("state.json", 20)
def _(folder: Path) -> tuple[Harm, Read]:
    run, path = run_and_checkpoint(folder)

    def read() -> None:
        checkpoint.examine(run)
        checkpoint.complete(run)
        checkpoint.open_checkpoint(path)

    return harms(path / "state.json", json_or_bytes), read


@target("record of a run", 4)
def _(folder: Path) -> tuple[Harm, Read]:
    run, path = run_and_checkpoint(folder)

    def read() -> None:
        settings_of(checkpoint.open_checkpoint(run), PretrainConfig)
        load_model(run)

    return harms(path / "config.json", json_or_bytes, lambda: resign(path)), read


@target("pretrain --resume", 1)
def _(folder: Path) -> tuple[Harm, Read]:
    """A damaged record, resumed with valid settings until the first step."""
    run, path = run_and_checkpoint(folder)
    genomes = f'data.genomes=[{{path="{folder / "genome.fa"}", species="human", held_out=["one:600-800"]}}]'
    config = load_config(path / "config.json", [genomes])
    quiet = Console(quiet=True)

    def read() -> None:
        found = checkpoint.newest(run)
        job = PretrainingRun(config, Processes(), found)
        restore(
            job, run, found, quiet, FREE_ON_RESUME, lambda record, path: _other_contents(record, job, path)
        )

    return harms(path / "config.json", json_or_bytes, lambda: resign(path)), read


def resumable(folder: Path) -> tuple[Path, Read]:
    """A run's only checkpoint, read completely: its weights, and weights and optimizer as in a resumed
    run."""
    run, path = run_and_checkpoint(folder)
    record = json.loads((path / "config.json").read_text())
    model, _ = load_model(run)
    optimizer = build_optimizer(model, lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    with CheckpointWriter(folder / "run", 3) as writer:
        writer.save(1, model, optimizer, record)

    def read() -> None:
        load_model(folder / "run")
        checkpoint.open_checkpoint(folder / "run").load(model, optimizer)

    return checkpoint_of(folder / "run"), read


@target(".metadata", 2)
def _(folder: Path) -> tuple[Harm, Read]:
    path, read = resumable(folder)
    old = pickle.loads((path / ".metadata").read_bytes())
    (path / ".metadata").write_bytes(pickle.dumps(old, protocol=2))
    resign(path)
    return harms(path / ".metadata", pickle_harmed, lambda: resign(path)), read


@target(".distcp", 1)
def _(folder: Path) -> tuple[Harm, Read]:
    path, read = resumable(folder)
    return harms(path / "__0_0.distcp", harmed, lambda: resign(path)), read


@target("metrics.jsonl", 40)
def _(folder: Path) -> tuple[Harm, Read]:
    path = folder / "metrics.jsonl"
    with open(path, "w") as file:
        for step in range(6):
            file.write(
                json.dumps({"step": step, "loss": 1.5 / (step + 1), "lr": 1e-4, "validation_loss": 2.0})
                + "\n"
            )
    text = path.read_text()

    def harm(chance: random.Random) -> None:
        if chance.randrange(2):
            put(path, harmed(chance, text.encode()))
        else:
            put(path, harmed_text(chance, text, ',:" ').removeprefix(b"\xef\xbb\xbf"))

    def read() -> None:
        read_metrics(folder)
        MetricsLog(folder, 4).close()

    return harm, read


@target("model.safetensors.index.json", 10)
def _(folder: Path) -> tuple[Harm, Read]:
    run, _ = run_and_checkpoint(folder)
    model, tokenizer = load_model(run)
    export = folder / "export"
    save_model(model, tokenizer, export, "folder")
    state = model.state_dict()
    parts = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(state)}
    for part in set(parts.values()):
        save_file({name: state[name].contiguous() for name in state if parts[name] == part}, export / part)
    (export / "model.safetensors").unlink()
    index = export / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 10952}, "weight_map": parts}))
    return harms(index, json_or_bytes), lambda: load_model(export)


def small_safetensors(folder: Path, *, compact: bool) -> Path:
    run, _ = run_and_checkpoint(folder)
    model, tokenizer = load_model(run)
    path = folder / "m.safetensors"
    if compact:
        save_compact(model, tokenizer, path)
    else:
        save_model(model, tokenizer, path, "safetensors")
    return path


@target("packed tables", 20)
def _(folder: Path) -> tuple[Harm, Read]:
    path = small_safetensors(folder, compact=True)
    return harms(
        path, lambda chance, data: (header_harmed if chance.randrange(3) else harmed)(chance, data)
    ), (lambda: load_model(path))


@target("safetensors", 20)
def _(folder: Path) -> tuple[Harm, Read]:
    path = small_safetensors(folder, compact=False)
    return harms(
        path, lambda chance, data: (header_harmed if chance.randrange(3) else harmed)(chance, data)
    ), (lambda: load_model(path, num_heads=1))


@target("part dnagpt of a header", 10)
def _(folder: Path) -> tuple[Harm, Read]:
    path = small_safetensors(folder, compact=True)

    def inner_harmed(chance: random.Random, data: bytes) -> bytes:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        text = header["__metadata__"]["dnagpt"].encode()
        header["__metadata__"]["dnagpt"] = json_or_bytes(chance, text).decode("utf-8", "replace")
        new = json.dumps(header).encode()
        return len(new).to_bytes(8, "little") + new + data[8 + size :]

    return harms(path, inner_harmed), lambda: load_model(path)


@target("hf config.json", 10)
def _(folder: Path) -> tuple[Harm, Read]:
    run, _ = run_and_checkpoint(folder)
    hf = folder / "export_hf"
    shutil.rmtree(run)
    return harms(hf / "config.json", json_or_bytes), lambda: load_model(hf)


@target("tokenizer_config.json", 5)
def _(folder: Path) -> tuple[Harm, Read]:
    run_and_checkpoint(folder)
    hf = folder / "export_hf"
    return harms(hf / "tokenizer_config.json", json_or_bytes), lambda: load_model(hf)


def zip_harmed(chance: random.Random, data: bytes) -> bytes:
    """Changes the pickle of torch's archive, in a matching archive; or bytes."""
    if chance.randrange(3) == 0:
        return harmed(chance, data)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            inner = old.read(name)
            new.writestr(name, pickle_harmed(chance, inner) if name.endswith(".pkl") else inner)
    return out.getvalue()


def published(folder: Path, *, legacy: bool) -> Path:
    run, _ = run_and_checkpoint(folder)
    path = folder / "published.pth"
    torch.save(load_model(run)[0].state_dict(), path, _use_new_zipfile_serialization=not legacy)
    return path


@target("published .pth", 15)
def _(folder: Path) -> tuple[Harm, Read]:
    path = published(folder, legacy=False)
    return harms(path, zip_harmed), lambda: load_model(path, num_heads=1)


@target("old .pth", 15)
def _(folder: Path) -> tuple[Harm, Read]:
    path = published(folder, legacy=True)

    def legacy_harmed(chance: random.Random, data: bytes) -> bytes:
        """The fourth of its pickles is the object."""
        if chance.randrange(3) == 0:
            return harmed(chance, data)
        start = 0
        for _ in range(3):
            start += list(pickletools.genops(data[start:]))[-1][2] + 1
        end = start + list(pickletools.genops(data[start:]))[-1][2] + 1
        return data[:start] + pickle_harmed(chance, data[start:end]) + data[end:]

    return harms(path, legacy_harmed), lambda: load_model(path, num_heads=1)


SETTINGS = """[model]
max_len = 24
num_layers = 1
bias = false
[vocabulary]
k = 1
[data]
genomes = [{ path = "genome.fa", species = "human", held_out = ["one:600-800"], weight = 2.0 }]
held_out_tail = 0.05
[schedule]
kind = "wsd"
warmup_steps = 2
decay_steps = 5
[optimizer]
lr = 1e-4
[run]
steps = 40
batch_size = 4
device = "cpu"
"""


@target("pretrain .toml", 40)
def _(folder: Path) -> tuple[Harm, Read]:
    path = folder / "settings.toml"
    path.write_text(SETTINGS)

    def harm(chance: random.Random) -> None:
        put(path, harmed_text(chance, SETTINGS, "= ,"))

    return harm, lambda: load_config(path, [])


@target("record of a tuned run", 4)
def _(folder: Path) -> tuple[Harm, Read]:
    run, _ = run_and_checkpoint(folder, "tuned")

    def read() -> None:
        load_finetune_config(settings_of_run(run), [])
        load_finetuned(run)

    return harms(run / "config.json", json_or_bytes), read


@target("predict", 1)
def _(folder: Path) -> tuple[Harm, Read]:
    """A damaged record, checked against valid rows."""
    run, _ = run_and_checkpoint(folder, "tuned")
    data = LabelledDataSettings(path=str(folder / "labels.csv"))
    return harms(run / "config.json", json_harmed), (
        lambda: predict(run, data, folder / "answers.tsv", device="cpu")
    )


@target("journal of scores", 40)
def _(folder: Path) -> tuple[Harm, Read]:
    of_output = JobFolder(folder / "x.vcf", "scores")
    job = {"model": "a", "genome": "b", "rule": {"phases": 1}, "source": ["c", 1, 2], "block_records": 2}
    journal = Journal.open(of_output, job, resume=False, main=True)
    for block in range(3):
        journal.append(
            0, block, [[AlleleScore(0.1, 0.2, None, 0.1, -1.0, ("N",))], [AlleleScore(*[None] * 5, ())]]
        )
    journal.close()
    paths = [of_output.path / "job.json", of_output.path / "process-0.jsonl"]
    sound = [path.read_bytes() for path in paths]

    def harm(chance: random.Random) -> None:
        which = chance.randrange(2)
        put(paths[1 - which], sound[1 - which])
        if which:
            put(
                paths[1],
                harmed_text(chance, sound[1].decode(), ',:[ "')
                if chance.randrange(2)
                else harmed(chance, sound[1]),
            )
        else:
            put(paths[0], json_or_bytes(chance, sound[0]))

    def read() -> None:
        again = Journal.open(of_output, job, resume=True, main=True)
        list(again.scores(3))

    return harm, read


@target("journal of rows", 40)
def _(folder: Path) -> tuple[Harm, Read]:
    of_output, job, rows = JobFolder(folder / "x.npy", "vectors"), {"model": "a", "layer": -1}, 5
    of_output.make(job)
    path = of_output.path / ROWS
    with contextlib.closing(RowJournal(of_output, (3,), "<f4")) as journal:
        for row in range(rows):
            journal.append([row + 0.25] * 3)

    def read() -> None:
        """Damaged rows are computed again, so each row that is found is right."""
        of_output.check(job)
        with contextlib.closing(RowJournal(of_output, (3,), "<f4")) as journal:
            found = list(journal.rows())
        if any(list(row) != [i + 0.25] * 3 for i, row in enumerate(found)) or len(found) > rows:
            raise AssertionError("a damaged row was taken")
        if len(found) < rows:
            raise ValueError(f"{path}: rows are missing")

    return harms(path, harmed), read


@target(".2bit", 40)
def _(folder: Path) -> tuple[Harm, Read]:
    path = folder / "x.2bit"
    (folder / "x.fa").write_text(
        ">one\nACGTNNacgtnnTTg\nACCA\n>two\nGGGGC\nnnnn\n>three\n" + "ACGGTTTCAT" * 30 + "\n"
    )
    write_twobit(path, read_fasta(folder / "x.fa"))

    def read() -> None:
        with Genome.open(path) as genome:
            list(contig_counts(genome))
            for name, length in zip(genome.names, genome.lengths.tolist(), strict=True):
                genome.sequence(name, 0, min(length, 1000), soft_mask=True)

    return harms(path, harmed), read


@target("bcf", 20)
def _(folder: Path) -> tuple[Harm, Read]:
    text, path = write_vcf_text(folder / "x.vcf"), folder / "x.bcf"
    pysam.bcftools.view("-Ob", "-o", str(path), str(text), catch_stdout=False)

    def inner_harmed(chance: random.Random, data: bytes) -> bytes:
        return (
            gzip.compress(harmed(chance, gzip.decompress(data)), 1, mtime=0)
            if chance.randrange(3)
            else harmed(chance, data)
        )

    def read() -> None:
        list(VcfFile(path).records())

    return harms(path, inner_harmed), read


assert len({one.name for one in TARGETS}) == len(TARGETS)
