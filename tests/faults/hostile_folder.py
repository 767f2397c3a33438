"""python -m tests.faults.hostile_folder FOLDER: every command opens folders with code in each place for a
pickle.

If the code ran, it would make the file FOLDER/code-ran. Prints one line for each: the folder, how it was
opened, and the answer. Exit code 1 if code ran.
"""

import contextlib
import io
import json
import os
import pickle
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from dnagpt_fast.cli import main as command_line
from dnagpt_fast.input_files import sha256_of
from dnagpt_fast.training import checkpoint, checkpoint_files
from dnagpt_fast.weights.forms import load_model, save_model
from tests.faults.jobs import make_inputs

# Words of torch's advice to turn its protection off.
ADVICE = ("weights_only", "safe_globals", "from a trusted source")


class Runs:
    """Makes a file when it is unpickled without protection."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def as_torch_file(evil: object) -> bytes:
    file = io.BytesIO()
    torch.save(evil, file)
    return file.getvalue()


def resign(path: Path) -> None:
    """Writes state.json with the checksums of the changed files, as an attacker would."""
    files = [file for file in sorted(path.iterdir()) if file.name != checkpoint.STATE]
    state = {
        "step": json.loads((path / checkpoint.STATE).read_text())["step"],
        "bytes": {file.name: file.stat().st_size for file in files},
        "sha256": {file.name: sha256_of(file) for file in files},
    }
    (path / checkpoint.STATE).write_text(json.dumps(state))


def checkpoint_of(run: Path) -> Path:
    (path,) = (run / checkpoint.FOLDER).iterdir()
    return path


def put_into_metadata(path: Path, evil: Runs) -> None:
    (path / checkpoint_files.METADATA).write_bytes(pickle.dumps(evil))
    resign(path)


def put_into_part(path: Path, evil: Runs, wanted: str) -> None:
    """In place of what .metadata lists under a name that holds `wanted`."""
    found = checkpoint_files.read_metadata(path)
    index = next(index for index in found.storage_data if wanted in index.fqn)
    code = as_torch_file(evil)
    place = found.storage_data[index]
    with open(path / place.relative_path, "ab") as file:
        place.offset, place.length = file.tell(), len(code)
        file.write(code)
    (path / checkpoint_files.METADATA).write_bytes(pickle.dumps(found))
    resign(path)


def make(folder: Path, mark: Path) -> dict[str, Path]:
    """Hostile runs, folders and files, by what they contain."""
    make_inputs(folder, sequences=3)
    evil = Runs(mark)
    code = pickle.dumps(evil, protocol=2)
    model, tokenizer = load_model(folder / "pretrained")
    made: dict[str, Path] = {}
    for name, put in (
        ("metadata", put_into_metadata),
        ("weights", lambda path, evil: put_into_part(path, evil, "wte.weight")),
        ("optimizer", lambda path, evil: put_into_part(path, evil, "optimizer.")),
    ):
        run = folder / f"run with code in {name}"
        shutil.copytree(folder / "pretrained", run)
        put(checkpoint_of(run), evil)
        made[f"run, {name}"] = run
    tuned = folder / "tuned with code in metadata"
    shutil.copytree(folder / "tuned", tuned)
    put_into_metadata(checkpoint_of(tuned), evil)
    made["tuned run, metadata"] = tuned
    for name, content in (
        ("zip.pth", as_torch_file({"model": evil})),
        ("pickle.pth", pickle.dumps({"model": evil}, protocol=2)),
        ("code instead of weights.safetensors", code),
    ):
        made[name] = folder / name
        made[name].write_bytes(content)
    for name in ("bin", "extra"):
        hf = folder / f"hf with code in {name}"
        save_model(model, tokenizer, hf, "hf")
        if name == "bin":
            (hf / "model.safetensors").unlink()
        for file in (
            "pytorch_model.bin",
            "training_args.bin",
            "optimizer.pt",
            "scheduler.pt",
            "rng_state.pth",
        ):
            (hf / file).write_bytes(as_torch_file(evil))
        (hf / "modeling_dnagpt.py").write_text(f"open({str(mark)!r}, 'w')\n")
        made[f"hf, {name}"] = hf
    return made


def commands_for(folder: Path, name: str, path: Path) -> Iterator[tuple[str, ...]]:
    """Every way to open it on the command line."""
    heads = ("--num-heads", "1")
    if name == "tuned run, metadata":
        yield ("finetune", "--resume", "--out", str(path), "--set", f"data.path={folder / 'labels.csv'}")
        yield ("predict", str(path), str(folder / "labels.csv"), "-o", str(folder / "answers.tsv"))
        return
    yield ("score", str(path), str(folder / "s.fa"), "--device", "cpu", *heads)
    yield ("embed", str(path), str(folder / "s.fa"), "-o", str(folder / "x.npy"), "--device", "cpu", *heads)
    yield ("generate", str(path), "--max-tokens", "4", "--device", "cpu", *heads)
    yield ("convert", str(path), str(folder / "converted"), "--to", "folder", *heads)
    yield (
        *("finetune", "--start", str(path), "--data", str(folder / "labels.csv"), "--task", "classification"),
        *("--out", str(folder / "started"), "--set", "start.num_heads=1", "--set", "run.epochs=1"),
        *("--set", "run.device=cpu", "--set", "split.kind=column"),
    )
    yield (
        *(
            "pretrain",
            "--start",
            str(path),
            "--genome",
            f"human={folder / 'genome.fa'}",
            "--set",
            "run.steps=1",
        ),
        *("--set", "start.num_heads=1", "--set", "run.device=cpu", "--set", "schedule.warmup_steps=0"),
        *("--out", str(folder / "started")),
    )
    if name.startswith("run, "):
        yield (
            *("pretrain", "--resume", "--out", str(path), "--set"),
            f'data.genomes=[{{path="{folder / "genome.fa"}", species="human", held_out=["one:600-800"]}}]',
        )


def hub_loads(path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every way to open a Hugging Face folder in Python."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dnagpt_fast.hub import DNAGPTForCausalLM

    yield "DNAGPTForCausalLM.from_pretrained", lambda: DNAGPTForCausalLM.from_pretrained(path)
    yield "AutoModelForCausalLM.from_pretrained", lambda: AutoModelForCausalLM.from_pretrained(path)
    yield "AutoTokenizer.from_pretrained", lambda: AutoTokenizer.from_pretrained(path)


def answer_of_command(arguments: tuple[str, ...]) -> str:
    """Its last line on standard error, or `done`."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            command_line(list(arguments))
    except SystemExit as left:
        if not left.code:
            return "done"
    return (said.getvalue().strip().splitlines() or ["nothing"])[-1]


def answer_of_call(call: Callable[[], object]) -> str:
    """The whole traceback of an error, with its causes, in one line; or `done`."""
    try:
        call()
    except Exception:  # noqa: BLE001 whatever comes out is what is shown
        return " ".join(traceback.format_exc().split())
    return "done"


def answers(
    folder: Path, mark: Path, wanted: Callable[[tuple[str, ...]], bool] = lambda arguments: True
) -> Iterator[tuple[str, str, str]]:
    """(the hostile part, how it was opened, the answer) for the `wanted` commands and for calls."""
    for name, path in make(folder, mark).items():
        for arguments in filter(wanted, commands_for(folder, name, path)):
            yield name, " ".join(arguments[:2])[:40], answer_of_command(arguments)
            for made in ("converted", "started"):
                shutil.rmtree(folder / made, ignore_errors=True)
        if name.startswith("hf, "):
            for how, call in hub_loads(path):
                yield name, how, answer_of_call(call)
        else:
            yield name, "load_model", answer_of_call(lambda path=path: load_model(path, num_heads=1))


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    mark = folder / "code-ran"
    for name, how, answer in answers(folder, mark):
        sys.stdout.write(f"{name:36} {how:40} {answer[-160:]}\n")
    if mark.exists():
        sys.exit("code ran")
    sys.stdout.write("no code ran\n")


if __name__ == "__main__":
    main()
