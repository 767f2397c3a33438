"""How a command ends: after signals, and for paths that it cannot use."""

import importlib
import os
import signal
import time
from types import SimpleNamespace

import pytest

from dnagpt_fast.cli import app


def after_a_signal(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(5)  # the handler ends it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_command_with_its_exit_code(monkeypatch, number):
    monkeypatch.setattr(app, "app", lambda **_: after_a_signal(number))
    with pytest.raises(SystemExit) as ended:
        app.main([])
    assert ended.value.code == 128 + number


def test_a_signal_whose_exception_python_changed_ends_a_command_without_a_message(monkeypatch, capfd):
    def command(**_: object) -> None:
        try:
            after_a_signal(signal.SIGINT)
        except SystemExit as error:
            raise RuntimeError("Error calling __set_name__ on 'x'") from error

    monkeypatch.setattr(app, "app", command)
    with pytest.raises(SystemExit) as ended:
        app.main([])
    assert ended.value.code == 128 + signal.SIGINT
    assert capfd.readouterr().err == ""


def test_a_signal_during_an_import_is_handled_after_it(tmp_path, monkeypatch):
    """Triton's library aborts the process if Python raises while it is imported."""
    (tmp_path / "slow_module.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.1)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = []

    def command(**_: object) -> None:
        found.append(importlib.import_module("slow_module").whole)
        time.sleep(5)

    monkeypatch.setattr(app, "app", command)
    with pytest.raises(SystemExit) as ended:
        app.main([])
    assert ended.value.code == 128 + signal.SIGTERM
    assert found == [True]


def test_a_signal_in_a_destructor_which_python_ignores_is_raised_again(monkeypatch, capfd):
    class Killer:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)  # the handler runs here, and Python ignores what it raises

    def command(**_: object) -> None:
        killer = Killer()
        del killer
        time.sleep(5)

    monkeypatch.setattr(app, "app", command)
    with pytest.raises(SystemExit) as ended:
        app.main([])
    assert ended.value.code == 128 + signal.SIGTERM
    assert "Exception ignored" not in capfd.readouterr().err


def test_a_second_signal_does_not_interrupt_the_clean_up(monkeypatch):
    tidied = []

    def command(**_: object) -> None:
        try:
            after_a_signal(signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            tidied.append(True)

    monkeypatch.setattr(app, "app", command)
    with pytest.raises(SystemExit) as ended:
        app.main([])
    assert ended.value.code == 128 + signal.SIGINT
    assert tidied


@pytest.mark.parametrize(
    "arguments",
    [("info", ""), ("pack", "a.fa", ""), ("score", "m", "a.fa", "-o", ""), ("pretrain", "--out", " ")],
)
def test_an_empty_path_is_an_error(arguments, capfd):
    with pytest.raises(SystemExit) as ended:
        app.main(list(arguments))
    assert ended.value.code == 2
    assert "the name is empty" in capfd.readouterr().err


@pytest.mark.parametrize("rank", ["0", "1", None])
@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_one_process_of_torchrun_says_where_the_run_is(tmp_path, monkeypatch, capsys, command, rank):
    module = importlib.import_module(f"dnagpt_fast.{command}.run")
    ended = SimpleNamespace(stopped_by=None, steps=0, report=None)
    monkeypatch.setattr(module, command, lambda *_, **__: [ended] if command == "finetune" else ended)
    if rank is not None:
        for name, value in (("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", rank)):
            monkeypatch.setenv(name, value)
    given = {
        "pretrain": ["--genome", "human=g.2bit"],
        "finetune": ["--task", "classification", "--data", "d.csv", "--start", "dna_gpt6m_m"],
    }
    with pytest.raises(SystemExit) as end:
        app.main([command, "--out", str(tmp_path / "run"), *given[command]])
    said = capsys.readouterr()
    assert not end.value.code, said.err
    assert said.out == ("" if rank == "1" else f"the run is in {tmp_path / 'run'}\n")
