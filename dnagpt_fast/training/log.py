"""metrics.jsonl, with one JSON object per step: written, and read after interruptions."""

import json
from pathlib import Path
from typing import Any

from dnagpt_fast.input_files import check_regular
from dnagpt_fast.output_files import errors_name, write_text

FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class MetricsLog:
    """Appends one line per step. When opened at step s it removes the lines of an interrupted run from step s
    on, so that no step is there twice.

    losses  messages about records of steps before s that are lost: a damaged end, steps without a record
    """

    def __init__(self, run: Path, first_step: int) -> None:
        self.path = run / FILE
        records, damaged_bytes = _read(run)
        kept = [record for record in records if record["step"] < first_step]
        self.losses = []
        if damaged_bytes:
            self.losses.append(f"{self.path}: {damaged_bytes:,} bytes of a damaged end are dropped")
        if missing := sorted(set(range(first_step)) - {record["step"] for record in kept}):
            steps = f"{missing[0]} to {missing[-1]}" if len(missing) > 1 else f"{missing[0]}"
            self.losses.append(f"{self.path} has no record of {len(missing):,} steps done, {steps}")
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = open(self.path, "a", buffering=1)  # noqa: SIM115 (closed by close())

    def write(self, record: dict[str, Any]) -> None:
        """Writes a record, which must have `step`. Each line goes to the operating system at once, so a
        killed run loses none. Raises OSError that names the file."""
        with errors_name(self.path):
            self._file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        self._file.close()


class TensorBoardLog:
    """The same records as event files for TensorBoard, in RUN/tensorboard. Raises RuntimeError, with the
    command to install it, if it is missing."""

    def __init__(self, run: Path, first_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise RuntimeError(
                "run.tensorboard = true needs TensorBoard: pip install 'dnagpt-fast[log]'"
            ) from error
        # TensorBoard then hides the records of an interrupted run from first_step on.
        self._writer = SummaryWriter(str(run / TENSORBOARD), purge_step=first_step)

    def write(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self._writer.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run, in the order of its steps.

    An incomplete line or NUL bytes at the end of the file, left by a kill or a power failure, are dropped.
    Raises ValueError that names file and line where a line before the last is damaged.
    """
    return _read(run)[0]


def _read(run: Path) -> tuple[list[dict[str, Any]], int]:
    """The records, and the number of bytes dropped after them."""
    path = run / FILE
    try:
        check_regular(path)
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    lines = content.split(b"\n")
    if lines[-1:] == [b""]:
        lines.pop()
    elif lines:
        lines.pop()  # a line without an end is incomplete
    while lines and not lines[-1].strip(b"\0 \r"):
        lines.pop()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line.strip(b"\0"))
            if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                raise ValueError("no record of a step")
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise ValueError(
                f"{path}:{number}: damaged ({error}): remove the line, or start a new run"
            ) from error
        records.append(record)
    return records, len(content) - sum(len(line) + 1 for line in lines[: len(records)])
