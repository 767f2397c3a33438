"""metrics.jsonl after interruptions."""

import os

import pytest

from dnagpt_fast.training.log import MetricsLog, read_metrics


def write(run, first, steps):
    log = MetricsLog(run, first)
    for step in steps:
        log.write({"step": step, "loss": float(step)})
    log.close()


def test_resuming_drops_the_steps_that_are_repeated(tmp_path):
    write(tmp_path, 0, range(7))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "lo')
    write(tmp_path, 4, range(4, 6))
    assert [record["step"] for record in read_metrics(tmp_path)] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "tail", [b"\0\0\0\0\0\0\0\n", b"\0" * 4096, b'{"step": 3, "lo\0\0\n', b'{"step": 3}', b"\xff\xfe\n"]
)
def test_what_a_power_failure_leaves_at_the_end_is_dropped(tmp_path, tail):
    write(tmp_path, 0, range(3))
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(tail)
    assert [record["step"] for record in read_metrics(tmp_path)] == [0, 1, 2]
    write(tmp_path, 3, [3])
    assert [record["step"] for record in read_metrics(tmp_path)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "line", [b"\0\0", b"{", b"[1]", b'{"loss": 1}', b"[" * 100_000, b'{"step": ' + b"9" * 5000 + b"}"]
)
def test_damage_before_the_end_names_file_and_line(tmp_path, line):
    write(tmp_path, 0, range(2))
    path = tmp_path / "metrics.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + b"\n" + second)
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: damaged"):
        read_metrics(tmp_path)


def test_lost_records_are_reported(tmp_path):
    write(tmp_path, 0, range(3))
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 3, "lo\0\0')
    log = MetricsLog(tmp_path, 5)
    log.close()
    assert [line.removeprefix(f"{tmp_path / 'metrics.jsonl'}") for line in log.losses] == [
        ": 17 bytes of a damaged end are dropped",
        " has no record of 2 steps done, 3 to 4",
    ]
    # A loss is reported once, and steps that will run again are not lost.
    log = MetricsLog(tmp_path, 2)
    log.close()
    assert log.losses == []


def test_a_pipe_in_place_of_the_file_is_an_error(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"metrics.jsonl is a pipe or a device: wanted a file"):
        read_metrics(tmp_path)
