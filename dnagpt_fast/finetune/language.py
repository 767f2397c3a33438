"""How a task's rows become tokens and how its numbers are scaled: stored with the weights of a fine-tuned
model."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.settings import TASKS, TRANSFORMS
from dnagpt_fast.finetune.templates import TaskTemplate
from dnagpt_fast.vocab import Vocabulary, reserved_id


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
        """Reads the result of `to_dict`. Raises KeyError, TypeError or ValueError for anything else."""
        kind, species, count = values["kind"], values["species"], values["numbers"]
        transform, classes, answers = values["target_transform"], values["classes"], values["answers"]
        if kind not in TASKS or transform not in TRANSFORMS or not isinstance(count, int) or count < 0:
            raise ValueError(f"kind {kind!r}, target_transform {transform!r}, numbers {count!r}")
        if not all(isinstance(name, str) for name in classes) or len(classes) != len(answers):
            raise ValueError(f"classes {classes!r:.80} with answers {answers!r:.80}")
        if not all(isinstance(answer, int) and 0 <= answer < len(vocabulary) for answer in answers):
            raise ValueError(f"answers {answers!r:.80}: wanted tokens of the vocabulary")
        reserved_id(species)
        scale = values["standardisation"]
        if (scale is not None) != (kind == "regression") or bool(classes) != (
            kind in ("classification", "tagging")
        ):
            raise ValueError(f"{kind} with standardisation {scale!r:.80} and classes {classes!r:.80}")
        if scale is not None:
            scale = Standardisation(
                tuple(map(_number, scale["number_mean"])),
                tuple(map(_number, scale["number_sd"])),
                _number(scale["target_mean"]),
                _number(scale["target_sd"]),
            )
            if not len(scale.number_mean) == len(scale.number_sd) == count:
                raise ValueError(f"{count} numbers with {scale}"[:200])
        template = TaskTemplate(kind, species, vocabulary, count)
        return cls(template, tuple(classes), tuple(answers), scale, transform)

    def natural_value(self, standardised: np.ndarray) -> np.ndarray:
        """Regression: standardised answers of the model as values of the (transformed) label, float64."""
        assert self.standardisation is not None
        return self.standardisation.value(standardised)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.40} is no number")
    return float(value)
