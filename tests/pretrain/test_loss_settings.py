"""The loss's settings in a run: the occurring tokens, the base-level loss and its first step, and the
reported values."""

import pytest
import torch

from dnagpt_fast.ops.combined_loss.occurring import unequal_rest
from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.run import load_run, pretrain
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.settings import ConfigError
from tests.pretrain.runs import metrics, write_config


@pytest.fixture
def job_of(tmp_path):
    def build(*overrides: str) -> PretrainingRun:
        return PretrainingRun(load_config(write_config(tmp_path), overrides), Processes())

    return build


def test_both_vocabularies_give_one_loss_and_one_gradient(job_of):
    """On equal rows; a batch of sequence without N."""
    occurring, full = job_of('loss.vocabulary="occurring"'), job_of()
    full.model.load_state_dict(occurring.model.state_dict())
    found = []
    for job in (occurring, full):
        losses = job.losses(job.batch_at(0, 0))
        losses["loss"].backward()
        found.append(
            (losses, {name: p.grad for name, p in job.model.named_parameters() if p.grad is not None})
        )
    (ours, gradients), (wanted, full_gradients) = found
    for name, value in wanted.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6, msg=name)
    for name, gradient in full_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_a_run_over_the_tokens_that_occur_saves_an_ordinary_model(tmp_path):
    settings = ('loss.vocabulary="occurring"', "loss.base_level=0.5", "loss.base_level_from_step=3")
    config = load_config(write_config(tmp_path), (*settings, "checkpoint.every_steps=3"))
    pretrain(config, tmp_path / "run")
    model = load_run(tmp_path / "run")[0]
    job = PretrainingRun(config, Processes())
    assert model.last_projection.weight.shape == (189, 32)
    # The last entries of a table may be rounded in another way by AdamW's vector instructions.
    assert unequal_rest(model.last_projection.weight, model.last_projection.bias, job.losses.occurring) < 1e-6
    lines = metrics(tmp_path / "run")
    assert lines[-1]["next_token"] < lines[0]["next_token"]
    # From step 3 on half of the next tokens' loss is in nats per base; the reported value is not.
    paid = [line["loss"] - line["order"] - config.loss.gc_weight * line["gc"] for line in lines]
    assert paid[2] == pytest.approx(lines[2]["next_token"], rel=1e-5)
    assert paid[3] < 0.8 * lines[3]["next_token"]


@pytest.mark.parametrize("vocabulary", ["full", "occurring"])
def test_what_is_reported_is_the_cross_entropy(job_of, vocabulary):
    job = job_of(
        f'loss.vocabulary="{vocabulary}"',
        "loss.z_loss=1e-2",
        "loss.base_level=0.4",
        "loss.base_level_from_step=2",
    )
    batch = job.batch_at(2, 0)
    mixed = job.losses(batch)
    assert job.losses.base_level == 0.4
    job.batch_at(1, 0)
    assert job.losses.base_level == 0
    without = job.losses(batch)
    plain = job.model.pretraining_loss(batch, occurring=job.losses.occurring)
    for name in ("next_token", "nats_per_bp"):
        torch.testing.assert_close(mixed[name], without[name])
    torch.testing.assert_close(mixed["next_token"], plain.next_token)
    assert without["loss"] > plain.total  # the z-loss
    assert mixed["loss"] < without["loss"] - 1  # nats a base instead of a token


def test_the_cost_counts_what_is_multiplied(job_of):
    ours, full = job_of('loss.vocabulary="occurring"').cost.flops, job_of().cost.flops
    assert ours < full


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.base_level=1.5", r"loss.base_level = 1.5: wanted a share, 0..1"),
        ("loss.base_level=-0.5", r"loss.base_level"),
        ("loss.base_level_from_step=5", r"loss.base_level_from_step = 5 with loss.base_level = 0"),
        ('loss.vocabulary="some"', r"loss.vocabulary = 'some': wanted full or occurring"),
    ],
)
def test_settings_without_meaning_are_refused(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write_config(tmp_path), (override,))
