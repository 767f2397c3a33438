"""How a task's rows become tokens and how its numbers are scaled: stored with the weights of a fine-tuned
model."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.templates import TaskTemplate
from dnagpt_fast.vocab import Vocabulary


@dataclass(frozen=True)
class Standardisation:
    """Means and standard deviations over the training rows: of the m numbers, and of a regression's
    target."""

    number_mean: tuple[float, ...]
    number_sd: tuple[float, ...]
    target_mean: float = 0.0
    target_sd: float = 1.0

    @classmethod
    def of(cls, numbers: np.ndarray, targets: np.ndarray | None) -> "Standardisation":
        """Raises LabelError where a column or the targets do not vary."""
        spread = numbers.std(0)
        if (spread == 0).any():
            raise LabelError(
                f"number column {int(np.argmin(spread))} is the same in every training row: leave it out"
            )
        mean, sd = (0.0, 1.0) if targets is None else (float(targets.mean()), float(targets.std()))
        if sd == 0:
            raise LabelError(f"every training label is {mean:g}: there is nothing to learn")
        return cls(tuple(numbers.mean(0).tolist()), tuple(spread.tolist()), mean, sd)

    def numbers(self, values: np.ndarray) -> np.ndarray:
        return ((values - np.array(self.number_mean)) / np.array(self.number_sd)).astype(np.float32)

    def target(self, values: np.ndarray) -> np.ndarray:
        return ((values - self.target_mean) / self.target_sd).astype(np.float32)

    def value(self, standardised: np.ndarray) -> np.ndarray:
        """The inverse of `target`, float64."""
        return standardised.astype(np.float64) * self.target_sd + self.target_mean


@dataclass(frozen=True)
class Language:
    """How a run builds prompts and reads answers. It is stored in config.json, so that `predict` does the
    same.

    answers: token ids of the classes.
    """

    template: TaskTemplate
    classes: tuple[str, ...] = ()
    answers: tuple[int, ...] = ()
    standardisation: Standardisation | None = None
    target_transform: str = "none"

    def to_dict(self) -> dict[str, Any]:
        scale = self.standardisation
        return {
            "kind": self.template.kind,
            "species": self.template.species,
            "numbers": self.template.numbers,
            "classes": list(self.classes),
            "answers": list(self.answers),
            "target_transform": self.target_transform,
            "standardisation": None if scale is None else vars(scale),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], vocabulary: Vocabulary) -> "Language":
        scale = values["standardisation"]
        if scale is not None:
            scale = {k: tuple(v) if isinstance(v, list) else v for k, v in scale.items()}
        return cls(
            TaskTemplate(values["kind"], values["species"], vocabulary, values["numbers"]),
            tuple(values["classes"]),
            tuple(values["answers"]),
            None if scale is None else Standardisation(**scale),
            values["target_transform"],
        )

    def natural_value(self, standardised: np.ndarray) -> np.ndarray:
        """Regression: standardised answers of the model as values of the (transformed) label, float64."""
        assert self.standardisation is not None
        return self.standardisation.value(standardised)
