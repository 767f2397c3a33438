"""Pre-training and fine-tuning share one engine: failures and signals end both at the same step."""

import contextlib
import json
import resource
from collections.abc import Iterator

import pytest
from rich.console import Console

from dnagpt_fast.pretrain.run import pretrain
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.checkpoint_writer import CheckpointWriter
from dnagpt_fast.training.log import read_metrics
from dnagpt_fast.training.loop import Loop
from tests.finetune.labelled import config_for, quick_finetune, write_motif_table
from tests.pretrain.runs import write_config

QUIET = Console(quiet=True)
KINDS = ["pretrain", "finetune"]


def start(kind, folder, *, resume=False):
    """A run of a few steps, with a checkpoint every third or so, and more than one of them."""
    folder.mkdir(exist_ok=True)
    if kind == "pretrain":
        config = load_config(write_config(folder), ["checkpoint.every_steps=3", "checkpoint.keep=9"])
        return pretrain(config, folder / "run", resume=resume, console=QUIET)
    config = config_for(write_motif_table(folder), "run.epochs=4", "run.patience=0", "run.keep=9")
    return quick_finetune(config, folder / "run", resume=resume)[0]


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A real failure of the disk: the system refuses to write more, as it does when there is no room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_cannot_be_written_ends_the_run_after_the_next_step(tmp_path, monkeypatch, kind):
    saved = CheckpointWriter.save

    def save_and_wait(writer, *arguments):
        """Waits until the failure has happened; a real run notices it a step or two later."""
        saved(writer, *arguments)
        writer._in_hand.exception()

    start(kind, tmp_path / "whole")
    run = tmp_path / "whole" / "run"
    found = checkpoint.complete(run)
    assert len(found) > 2
    every = found[0].step
    sizes = {path.name: path.stat().st_size for path in found[0].path.iterdir()}
    # More than the other files of a run, less than weights with both moments.
    limit = int(0.6 * max(sizes.values()))
    assert limit > max(path.stat().st_size for path in run.iterdir() if path.suffix in (".json", ".jsonl"))
    monkeypatch.setattr(CheckpointWriter, "save", save_and_wait)
    with (
        files_no_larger_than(limit),
        pytest.raises(checkpoint.CheckpointError, match=r"File too large.*those before it are untouched"),
    ):
        start(kind, tmp_path / "full")
    # The step after the failed checkpoint is done and logged, and no later one.
    assert [record["step"] for record in read_metrics(tmp_path / "full" / "run")] == list(range(every + 1))
    assert list((tmp_path / "full" / "run" / checkpoint.FOLDER).iterdir()) == []
    # There is space again: the run continues to the same end.
    monkeypatch.undo()
    assert start(kind, tmp_path / "full", resume=True).stopped_by is None
    curves = [[r["loss"] for r in read_metrics(tmp_path / name / "run")] for name in ("whole", "full")]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_ends_both_with_a_checkpoint_that_both_go_on_from(tmp_path, monkeypatch, kind):
    start(kind, tmp_path / "whole")
    step = Loop.begin

    def signalled(loop, number, stop):
        if number == 4:
            stop.signal_name = "SIGTERM"
        return step(loop, number, stop)

    monkeypatch.setattr(Loop, "begin", signalled)
    outcome = start(kind, tmp_path / "stopped")
    assert (outcome.steps, outcome.stopped_by, outcome.report) == (5, "SIGTERM", None)
    monkeypatch.undo()
    outcome = start(kind, tmp_path / "stopped", resume=True)
    assert outcome.stopped_by is None
    curves = [[r["loss"] for r in read_metrics(tmp_path / name / "run")] for name in ("whole", "stopped")]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_holds_a_run_is_refused_and_stays(tmp_path, kind):
    start(kind, tmp_path)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match="holds a run already: continue it with --resume"):
        start(kind, tmp_path)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert json.loads((tmp_path / "run" / "config.json").read_text())["kind"] == kind
