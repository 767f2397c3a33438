"""The finished methods of an unfinished evaluation on disk, so that --resume continues after the last one.

They are in the job's folder (training/job_folder.py), in its file `methods`: one line of JSON each.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from dnagpt_fast.suites.task import Prediction
from dnagpt_fast.training.job_folder import JobFolder

METHODS = "methods"


@dataclass(frozen=True)
class Done:
    """One finished method. role: baseline, model or control; seconds: what it took."""

    task: str
    method: str
    role: str
    way: str
    model: str
    seconds: float
    prediction: Prediction


class Journal:
    """The finished methods of one job; `done` has those of earlier runs too."""

    def __init__(self, folder: JobFolder) -> None:
        self.done: list[Done] = []
        self._parts = folder.parts(METHODS, self._whole_lines)

    def has(self, task: str, method: str) -> bool:
        return any(one.task == task and one.method == method for one in self.done)

    def append(self, one: Done) -> None:
        record = {
            **{name: getattr(one, name) for name in ("task", "method", "role", "way", "model", "seconds")},
            "chosen": one.prediction.chosen,
            "values": [_packed(values) for values in one.prediction.values],
        }
        self._parts.append(json.dumps(record).encode() + b"\n")
        self.done.append(one)

    @property
    def is_empty(self) -> bool:
        return not self.done

    def close(self) -> None:
        self._parts.close()

    def _whole_lines(self, file: BinaryIO) -> int:
        size = 0
        for line in file:
            try:
                self.done.append(_read(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                break  # cut by the end of the process: this method runs again
            size += len(line)
        return size


def _read(record: dict[str, Any]) -> Done:
    values = [_unpacked(one) for one in record.pop("values")]
    return Done(prediction=Prediction(values, record.pop("chosen")), **record)


def _packed(values: np.ndarray) -> dict[str, Any]:
    data = np.ascontiguousarray(values, "<f8")
    return {"shape": data.shape, "float64": base64.b64encode(data.tobytes()).decode()}


def _unpacked(one: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(one["float64"]), "<f8").reshape(one["shape"])
