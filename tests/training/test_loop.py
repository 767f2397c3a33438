"""The loop on a problem small enough to follow: accumulation, agreement on figures, the ends of a run."""

import os
import signal

import pytest
import torch
from torch import nn

from dnagpt_fast.training.loop import Loop, NonFiniteLoss, StopRequest


class Squares(nn.Module):
    """batch (B, 3) -> mean squared output of one Linear."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 2)

    def forward(self, batch):
        return {"loss": self.linear(batch).square().mean(), "first": batch[0, 0]}


SAMPLES = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))


def make_loop(parts=1, batch_size=8, samples=SAMPLES, **settings) -> Loop:
    model = Squares()
    size = batch_size // parts

    def batch_at(step, part):
        first = step * batch_size + part * size
        return samples[first : first + size]

    return Loop(
        losses_of=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        batch_at=batch_at,
        lr_at=lambda step: 0.1,
        describe=lambda batch: [f"sample {row.tolist()}" for row in batch],
        parts=parts,
        **settings,
    )


def weights_after(loop, steps=5):
    list(loop.run(0, steps, StopRequest()))
    return loop.losses_of.linear.weight.detach().clone()


def test_accumulation_is_the_whole_batch():
    torch.testing.assert_close(
        weights_after(make_loop(parts=4)), weights_after(make_loop()), rtol=1e-6, atol=1e-7
    )


def test_reports_are_means_over_the_parts():
    (report,) = make_loop(parts=2).run(0, 1, StopRequest())
    assert report.losses["first"] == pytest.approx(float(SAMPLES[[0, 4], 0].mean()))
    assert (report.step, report.lr, report.stop) == (0, 0.1, False)
    assert report.grad_norm > 0


def test_gradients_are_clipped_to_the_norm():
    loop = make_loop(clip_norm=1e-3)
    before = loop.losses_of.linear.weight.detach().clone()
    (report,) = loop.run(0, 1, StopRequest())
    linear = loop.losses_of.linear
    moved = torch.cat([(linear.weight.detach() - before).flatten(), linear.bias.grad * 0.1])
    assert report.grad_norm > 1e-3
    assert float(moved.norm()) == pytest.approx(1e-4, rel=0.01)


def test_no_clipping_where_the_norm_is_0():
    loop = make_loop(clip_norm=0.0)
    (report,) = loop.run(0, 1, StopRequest())
    norm = torch.cat([p.grad.flatten() for p in loop.losses_of.parameters()]).norm()
    assert report.grad_norm == pytest.approx(float(norm))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(value):
    samples = SAMPLES.clone()
    samples[21, 1] = value
    loop = make_loop(parts=2, samples=samples)
    reports = []
    with pytest.raises(NonFiniteLoss) as caught:
        reports += loop.run(0, 5, StopRequest())
    message = str(caught.value)
    assert message.startswith("step 2, process 0 of 1: the loss is")
    # Only samples 20 to 23, the part with the bad loss, are named, not the other half of the step.
    assert message.count("sample") == 4
    assert str(SAMPLES[22].tolist()) in message
    twin = make_loop(parts=2)
    assert torch.equal(loop.losses_of.linear.weight, weights_after(twin, 2))


def test_a_gradient_that_is_not_finite_stops_too():
    class Root(Squares):
        def forward(self, batch):
            return {"loss": (self.linear(batch) * 0).abs().sum().sqrt()}

    loop = make_loop()
    loop.losses_of = Root()
    loop.optimizer = torch.optim.SGD(loop.losses_of.parameters(), lr=0.0)
    with pytest.raises(NonFiniteLoss, match="the norm of the gradient is nan"):
        list(loop.run(0, 1, StopRequest()))


def test_nohup_keeps_a_run_alive():
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest().listening() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_run_after_the_current_step(number):
    handler = signal.getsignal(number)
    with StopRequest().listening() as stop:
        steps = []
        for report in make_loop().run(0, 5, stop):
            steps.append(report.step)
            if report.step == 1:
                os.kill(os.getpid(), number)
                if number == signal.SIGTERM:  # Slurm's, and torchrun's
                    os.kill(os.getpid(), number)
        # The signal comes between steps 1 and 2; step 2 sees it.
        assert steps == [0, 1, 2]
        assert stop.signal_name == number.name
    assert signal.getsignal(number) is handler
