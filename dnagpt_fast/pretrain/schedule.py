"""The learning rate of a pre-training run, changes of its length, and warnings about unusual schedules."""

import dataclasses
import itertools
from collections.abc import Callable

from dnagpt_fast.pretrain.settings import PretrainConfig
from dnagpt_fast.training.optimizer import warmup_cosine, warmup_stable_decay
from dnagpt_fast.training.settings import ConfigError

# Settings that `lengthened` has checked; all other settings of the schedule must be those of the checkpoint.
SETTLED = ("run.steps", "schedule.decay_steps", "schedule.restarts")


def pieces(config: PretrainConfig) -> list[tuple[int, int]]:
    """(first step, end) of each piece of the run; every restart begins a new piece. Raises ConfigError."""
    edges = (0, *config.schedule.restarts, config.run.steps)
    if list(edges) != sorted(set(edges)):
        raise ConfigError(
            f"schedule.restarts = {list(config.schedule.restarts)}: wanted ascending steps between 0 and "
            f"run.steps = {config.run.steps}"
        )
    return list(itertools.pairwise(edges))


def rate_of(config: PretrainConfig) -> Callable[[int], float]:
    """step -> learning rate, a pure function. Raises ConfigError where the schedule does not fit the run."""
    lr, schedule = config.optimizer.lr, config.schedule
    found = []
    for first, end in pieces(config):
        try:
            if schedule.kind == "wsd":
                rate = warmup_stable_decay(
                    lr, schedule.warmup_steps, schedule.decay_steps, end - first, schedule.min_lr_share
                )
            else:
                rate = warmup_cosine(lr, schedule.warmup_steps, end - first, schedule.min_lr_share)
        except ValueError as error:
            where = f", steps {first} to {end - 1} between restarts" if schedule.restarts else ""
            raise ConfigError(
                f"schedule.warmup_steps = {schedule.warmup_steps}, schedule.decay_steps = {schedule.decay_steps}, "
                f"run.steps = {config.run.steps}{where}: {error}"
            ) from error
        found.append((first, rate))

    def rate_at(step: int) -> float:
        first, rate = next(piece for piece in reversed(found) if piece[0] <= step)
        return rate(step - first)

    return rate_at


def lengthened(config: PretrainConfig, then: PretrainConfig, step: int) -> PretrainConfig:
    """The settings for continuing at `step` a run with the settings `then`, with the restart that they need.

    A run with kind = "wsd" may get another length (and decay) while its rate is constant. A finished run may
    get more steps: the schedule starts again at the old end, and this step is added to schedule.restarts.
    Raises ConfigError for another change of the length, with what can be done instead.
    """
    old, new = then.run.steps, config.run.steps
    restarts = config.schedule.restarts or then.schedule.restarts
    same = config.schedule.kind == then.schedule.kind
    config = dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, restarts=restarts))
    if (new, config.schedule.decay_steps) == (old, then.schedule.decay_steps) or not same:
        return config
    if then.schedule.kind == "wsd" and step <= min(
        old - then.schedule.decay_steps, new - config.schedule.decay_steps
    ):
        return config
    if step == old and new > old:
        longer = dataclasses.replace(config.schedule, restarts=(*restarts, old))
        return dataclasses.replace(config, schedule=longer)
    if then.schedule.kind == "wsd":
        why = f"its decay starts at step {old - then.schedule.decay_steps}; a new one must not start before step {step}"
    else:
        why = f"its cosine ends at step {old}"
    raise ConfigError(
        f"run.steps was {old}, is {new}, and the run is at step {step}: {why}. Finish it with run.steps = {old}; then "
        "--resume --set run.steps=MORE continues with a new warm-up. With schedule.kind = 'wsd' the length can change"
    )


def oddities(config: PretrainConfig) -> list[str]:
    """Warnings, one sentence each, about settings of the schedule that work but look like a mistake."""
    lr, schedule, rate_at = config.optimizer.lr, config.schedule, rate_of(config)
    found = []
    for first, end in pieces(config):
        steps = end - first
        # The rate rises until this step.
        top = min(end, first + schedule.warmup_steps + 1)
        highest = max(map(rate_at, range(max(first, top - 2), top)))
        if highest < lr * (1 - 1e-3):
            found.append(
                f"the rate never reaches optimizer.lr = {lr:g}: its maximum in steps {first}-{end - 1} is {highest:g}"
            )
        if schedule.warmup_steps > steps / 2:
            found.append(
                f"the warm-up takes {schedule.warmup_steps} of {steps} steps: a few percent is usual"
            )
    if schedule.kind == "wsd" and not schedule.decay_steps:
        found.append(
            "schedule.kind = 'wsd' with decay_steps = 0: the rate is never lowered; the last fifth or so is usual"
        )
    if schedule.kind != "wsd" and schedule.decay_steps:
        found.append(
            f"schedule.decay_steps = {schedule.decay_steps} has no effect with kind = {schedule.kind!r}"
        )
    if not lr:
        found.append("optimizer.lr = 0: the model does not learn")
    if schedule.min_lr_share >= 1:
        found.append(f"schedule.min_lr_share = {schedule.min_lr_share:g}: the rate does not go down")
    switch = config.loss.base_level_from_step
    if switch >= config.run.steps:
        found.append(
            f"loss.base_level_from_step = {switch} is not reached within run.steps = {config.run.steps}: the loss "
            "stays the cross-entropy"
        )
    every = config.validation.every_steps
    if every >= config.run.steps:
        found.append(
            f"validation.every_steps = {every} is not reached within run.steps = {config.run.steps}: there is only "
            "the last report"
        )
    return found
