"""Stopped jobs of `embed` and `score` that `--resume` continues: the output of an undisturbed run, bit for bit."""

import importlib.util
import signal
import subprocess
import sys

import numpy as np
import pytest

from dnagpt_fast import KmerTokenizer
from dnagpt_fast.cli import main
from dnagpt_fast.training.row_journal import RowJournal
from dnagpt_fast.weights.forms import save_model
from tests.faults.jobs import ENVIRONMENT, ROOT
from tests.tiny import load_tiny

ROWS = 12
ANNDATA = pytest.mark.skipif(
    importlib.util.find_spec("anndata") is None, reason="anndata is not installed: pip install '.[h5ad]'"
)
KINDS = {
    "npy": ("embed", "x.npy"),
    "safetensors": ("embed", "x.safetensors", "--both-strands"),
    "parquet": ("embed", "x.parquet", "--layer", "1", "--layer", "-1"),
    "h5ad": ("embed", "x.h5ad", "--layer", "1", "--layer", "-1"),
    "score": ("score", "x.tsv", "--both-strands"),
}


@pytest.fixture
def inputs(tmp_path):
    save_model(load_tiny("tiny_bias").model(), KmerTokenizer(3), tmp_path / "m", "folder")
    draw = np.random.default_rng(3)
    (tmp_path / "x.fa").write_text(
        "".join(f">s{i}\n{''.join(draw.choice(list('ACGTN'), 20 + 9 * i))}\n" for i in range(ROWS))
    )
    return tmp_path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(one) for one in arguments])
    return stopped.value.code, capsys.readouterr().err


def command(inputs, kind, folder, model="m", more=()):
    name, output, *options = KINDS[kind]
    return [
        name,
        inputs / model,
        inputs / "x.fa",
        "-o",
        folder / output,
        "--batch-tokens",
        "60",
        *options,
        *more,
    ]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class Stop(BaseException):
    """As a signal ends the process."""


def stop_after(monkeypatch, rows):
    append = RowJournal.append

    def stopping(self, row):
        if self.count == rows:
            raise Stop
        append(self, row)

    monkeypatch.setattr(RowJournal, "append", stopping)


@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")  # anndata 0.13 with pandas 3.1
@pytest.mark.parametrize(
    "kind",
    [
        "npy",
        pytest.param("safetensors", marks=pytest.mark.slow),
        "parquet",
        pytest.param("h5ad", marks=ANNDATA),
        "score",
    ],
)
def test_a_stopped_job_goes_on_to_the_same_bytes(capsys, inputs, tmp_path, monkeypatch, kind):
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    code, err = run(capsys, *command(inputs, kind, tmp_path / "whole"))
    assert code == 0, err
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(Stop):
            main([str(one) for one in command(inputs, kind, tmp_path / "stopped")])
    (folder,) = (tmp_path / "stopped").iterdir()
    assert folder.name.startswith(f".{KINDS[kind][1]}.")
    rows = folder / "rows"
    for end in (b"", b"\0" * 5_000, b"half a row"):  # as a kill or a power failure leaves it
        rows.write_bytes(rows.read_bytes() + end)
    code, err = run(capsys, *command(inputs, kind, tmp_path / "stopped"))
    assert (code, "of an unfinished job: continue it with --resume" in err) == (1, True), err
    asked = []
    with monkeypatch.context() as patch:
        append = RowJournal.append
        patch.setattr(
            RowJournal, "append", lambda self, row: (asked.append(self.count), append(self, row))[1]
        )
        code, err = run(capsys, *command(inputs, kind, tmp_path / "stopped", more=["--resume"]))
    assert code == 0, err
    assert asked == list(range(5, ROWS))
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    assert not any(path.is_dir() for path in (tmp_path / "stopped").iterdir())


def test_a_killed_job_goes_on_to_the_same_bytes(capsys, inputs, tmp_path):
    """kill -9 in the middle of the eighth row."""
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert run(capsys, *command(inputs, "npy", tmp_path / "whole"))[0] == 0
    arguments = [str(one) for one in command(inputs, "npy", tmp_path / "killed")]
    code = (
        "import os, signal, sys\nfrom dnagpt_fast.training.job_folder import Parts\n"
        "append, parts = Parts.append, []\n"
        "def killed(self, part):\n"
        "    parts.append(part)\n"
        "    append(self, part if len(parts) < 8 else part[:20])\n"
        "    if len(parts) == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Parts.append = killed\n"
        "from dnagpt_fast.cli import main\n"
        f"main({arguments!r})\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [".x.npy.vectors"]
    code, err = run(capsys, *command(inputs, "npy", tmp_path / "killed", more=["--resume"]))
    assert code == 0, err
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["npy", "score"])
def test_what_changed_is_named(capsys, inputs, tmp_path, monkeypatch, kind):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stop):
            main([str(one) for one in command(inputs, kind, tmp_path)])
    other = load_tiny("tiny_bias").model()
    other.transformer.ln_f.bias.data[0] += 1
    save_model(other, KmerTokenizer(3), tmp_path / "other", "folder")
    settings = ["--prefix", "", "--both-strands"] if kind == "npy" else ["--prefix", ""]
    text = (inputs / "x.fa").read_text()
    for more, model, sequences, words in (
        ([], "other", text, "is of another job: model was"),
        (settings, "m", text, "prefix was <R>, is"),
        (["--region", "s3", "--region", "s5"], "m", text, "sequences was"),
        ([], "m", text.replace("A", "C", 1), "sequences was"),
    ):
        (inputs / "x.fa").write_text(sequences)
        code, err = run(capsys, *command(inputs, kind, tmp_path, model=model, more=[*more, "--resume"]))
        assert (code, words in err) == (1, True), err
    folder = next(path for path in tmp_path.iterdir() if path.name.startswith(".x."))
    (folder / "job.json").write_text("{")
    code, err = run(capsys, *command(inputs, kind, tmp_path, more=["--resume"]))
    assert (code, "and start anew" in err) == (1, True), err


@pytest.mark.parametrize("kind", ["npy", "score"])
def test_a_job_without_a_row_leaves_nothing(capsys, inputs, tmp_path, monkeypatch, kind):
    code, err = run(capsys, *command(inputs, kind, tmp_path, more=["--resume"]))
    assert (code, "there is no unfinished job of" in err) == (1, True), err
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        with pytest.raises(Stop):
            main([str(one) for one in command(inputs, kind, tmp_path)])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_second_process_is_refused(capsys, inputs, tmp_path, monkeypatch):
    append, said = RowJournal.append, []

    def meanwhile(self, row):
        append(self, row)
        if self.count == 3:
            for more in (["--resume"], []):
                with pytest.raises(SystemExit):
                    main([str(one) for one in command(inputs, "npy", tmp_path, more=more)])
                said.append(capsys.readouterr().err)

    monkeypatch.setattr(RowJournal, "append", meanwhile)
    assert run(capsys, *command(inputs, "npy", tmp_path))[0] == 0
    assert ["another process is working on this job" in text for text in said] == [True, True]


def test_resume_needs_a_file(capsys, inputs):
    code, err = run(capsys, "score", inputs / "m", inputs / "x.fa", "--resume")
    assert (code, "wanted with -o FILE" in err) == (2, True), err


def test_the_longest_name_has_a_folder_for_its_job(inputs, capsys, monkeypatch):
    name = "x" * 251 + ".tsv"
    arguments = ["score", inputs / "m", inputs / "x.fa", "-o", inputs / name]
    stop_after(monkeypatch, 3)
    with pytest.raises(Stop):
        main([str(one) for one in arguments])
    monkeypatch.undo()
    assert run(capsys, *arguments, "--resume")[0] == 0
    assert len((inputs / name).read_text().splitlines()) == ROWS + 1
    code, said = run(capsys, "embed", inputs / "m", inputs / "x.fa", "-o", inputs / ("x" * 251 + ".npy"))
    assert code == 1  # before any work, because the file of the names would be longer
    assert "File name too long" in said
    assert {path.name for path in inputs.iterdir()} == {"m", "x.fa", name}
