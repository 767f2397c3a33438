"""How a command ends: after signals, and for paths that it cannot use."""

import importlib
import os
import signal
import time

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
