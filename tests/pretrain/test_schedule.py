"""Rates of whole runs, runs that are made longer, and warnings about unusual schedules."""

import dataclasses

import pytest

from dnagpt_fast.pretrain.schedule import lengthened, oddities, rate_of
from dnagpt_fast.pretrain.settings import LossSettings, PretrainConfig, RunSettings, ScheduleSettings
from dnagpt_fast.training.settings import ConfigError, OptimizerSettings


def config(steps: int, lr: float = 1.0, **schedule) -> PretrainConfig:
    settings = ScheduleSettings(**{"warmup_steps": 4, **schedule})
    return PretrainConfig(run=RunSettings(steps=steps), schedule=settings, optimizer=OptimizerSettings(lr=lr))


def test_warmup_stable_decay():
    rate = rate_of(config(40, kind="wsd", decay_steps=16, min_lr_share=0.1))
    assert [rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert {rate(step) for step in range(3, 24)} == {1.0}
    assert rate(27) == pytest.approx(0.1 + 0.9 * (1 - 0.5))  # a quarter of the decay, its root a half
    assert rate(39) == pytest.approx(0.1)


def test_a_constant_rate_run_changes_its_length_and_a_finished_run_restarts():
    then = config(40, kind="wsd", decay_steps=10)
    longer = config(100, kind="wsd", decay_steps=20)
    assert lengthened(longer, then, step=30) == longer
    shorter = config(35, kind="wsd", decay_steps=5)
    assert lengthened(shorter, then, step=30) == shorter
    again = lengthened(longer, then, step=40)
    assert again.schedule.restarts == (40,)
    rate = rate_of(again)
    assert rate(39) == 0
    assert rate(40) == 0.25
    assert rate(43) == 1.0
    assert rate(99) == 0


def test_a_cosine_run_is_made_longer_at_its_end_and_remembers_it():
    then = config(20)
    longer = lengthened(config(60), then, step=20)
    assert longer.schedule.restarts == (20,)
    assert rate_of(longer)(19) == pytest.approx(0)
    assert rate_of(longer)(23) == 1.0
    # The same command once more, after a stop in the middle of the second piece: the restart is remembered.
    assert lengthened(config(60), longer, step=33) == longer
    assert lengthened(config(90), longer, step=60).schedule.restarts == (20, 60)


@pytest.mark.parametrize(
    ("then", "now", "step", "message"),
    [
        (config(20), config(60), 10, "its cosine ends at step 20. Finish it with run.steps = 20"),
        (config(20), config(12), 10, "run.steps was 20, is 12, and the run is at step 10"),
        (
            config(40, kind="wsd", decay_steps=10),
            config(60, kind="wsd", decay_steps=10),
            33,
            "its decay starts at step 30",
        ),
    ],
)
def test_another_change_of_the_length_is_refused_with_what_can_be_done(then, now, step, message):
    with pytest.raises(ConfigError, match=message) as caught:
        lengthened(now, then, step)
    assert "--resume --set run.steps=MORE" in str(caught.value)


def test_schedules_that_do_not_fit_the_run_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"schedule.warmup_steps = 4.*run.steps = 3"):
        rate_of(config(3))
    with pytest.raises(ConfigError, match=r"schedule.decay_steps = 38.*run.steps = 40"):
        rate_of(config(40, kind="wsd", decay_steps=38))
    with pytest.raises(ConfigError, match=r"run.steps = 99, steps 0 to 39 between restarts: .* decay of 37"):
        rate_of(config(99, kind="wsd", decay_steps=37, restarts=(40,)))
    with pytest.raises(ConfigError, match=r"schedule.restarts = \[50\]: wanted ascending steps between 0"):
        rate_of(config(40, restarts=(50,)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (config(6), "the warm-up takes 4 of 6 steps"),
        (config(40, kind="wsd"), "decay_steps = 0: the rate is never lowered"),
        (config(40, decay_steps=4), "decay_steps = 4 has no effect with kind = 'cosine'"),
        (config(40, lr=0.0), "optimizer.lr = 0: the model does not learn"),
        (config(40, min_lr_share=1.0), "the rate does not go down"),
        (
            dataclasses.replace(
                config(40), validation=dataclasses.replace(PretrainConfig().validation, every_steps=50)
            ),
            "validation.every_steps = 50 is not reached within run.steps = 40",
        ),
        (config(5, warmup_steps=0), "the rate never reaches optimizer.lr = 1"),
        (
            dataclasses.replace(config(40), loss=LossSettings(base_level=0.5, base_level_from_step=40)),
            "loss.base_level_from_step = 40 is not reached within run.steps = 40",
        ),
    ],
)
def test_unusual_schedules_give_a_warning(settings, message):
    assert any(message in line for line in oddities(settings)), oddities(settings)


def test_an_ordinary_schedule_gives_no_warning():
    assert oddities(config(400)) == []
    assert oddities(config(400, kind="wsd", decay_steps=80)) == []
