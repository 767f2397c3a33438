"""The loop on a problem small enough to follow: accumulation, agreement on figures, the ends of a run."""

import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from dnagpt_fast.training.loop import Loop, NonFiniteLoss, StopRequest
from dnagpt_fast.training.optimizer import build_optimizer
from dnagpt_fast.training.processes import Processes


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
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0, fused=True),
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
    loop.optimizer = torch.optim.SGD(loop.losses_of.parameters(), lr=0.0, fused=True)
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


@pytest.fixture(params=["adamw", "muon"])
def trained(request):
    """A function that makes loops of steps that change the weights."""

    def make(**settings) -> Loop:
        loop = make_loop(**settings)
        matrices = {loop.losses_of.linear.weight: 1} if request.param == "muon" else None
        loop.optimizer = build_optimizer(
            loop.losses_of, lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1, muon=matrices
        )
        return loop

    return make


def state_of(loop: Loop) -> list[torch.Tensor]:
    """Copies of weights and moments."""
    moments = [
        value for state in loop.optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    ]
    return [x.detach().clone() for x in (*loop.losses_of.parameters(), *moments)]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def figures(report) -> tuple:
    return report.step, report.losses, report.lr, report.grad_norm, report.stop


def test_numbers_read_late_are_those_read_at_once(trained):
    at_once, late = trained(clip_norm=0.01), trained(clip_norm=0.01, late=True)
    reports = [list(loop.run(0, 5, StopRequest())) for loop in (at_once, late)]
    unpaused = trained(clip_norm=0.01, late=True)
    reports.append(list(unpaused.run(0, 5, StopRequest(), lambda done: False)))
    assert [*map(figures, reports[0])] == [*map(figures, reports[1])] == [*map(figures, reports[2])]
    assert same(state_of(at_once), state_of(late))
    assert same(state_of(at_once), state_of(unpaused))


def test_at_a_pause_no_later_step_has_begun(trained):
    """A checkpoint is then that of the step; at the other reports the next step has begun."""
    loop, begun = trained(late=True), []
    begin = loop.begin
    loop.begin = lambda step, stop: (begun.append(step), begin(step, stop))[1]
    seen = {}
    for report in loop.run(0, 5, StopRequest(), lambda done: done in (2, 3)):
        seen[report.step] = begun[-1]
    assert seen == {0: 1, 1: 1, 2: 2, 3: 4, 4: 4}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
def test_after_a_loss_that_is_not_finite_weights_and_moments_are_those_before_it(trained, late, parts):
    """Late, step 3 has run when the numbers of step 2 are read, and it is finite: it must not change anything."""
    samples = SAMPLES.clone()
    samples[21, 1] = float("nan")
    loop, begun = trained(samples=samples, parts=parts, late=late), []
    begin = loop.begin
    loop.begin = lambda step, stop: (begun.append(step), begin(step, stop))[1]
    reports = []
    with pytest.raises(NonFiniteLoss, match="step 2, process 0 of 1: the loss is nan") as caught:
        reports += loop.run(0, 5, StopRequest(), lambda done: False)
    assert begun[-1] == (3 if late else 2)
    named = str(caught.value)
    assert str(SAMPLES[22].tolist()) in named
    assert str(SAMPLES[24].tolist()) not in named  # a sample of step 3
    twin = trained(parts=parts)
    list(twin.run(0, 2, StopRequest()))
    assert same(state_of(loop), state_of(twin))


def test_a_gradient_that_is_not_finite_is_named_late_too(trained):
    loop = trained(late=True)
    loop.losses_of.linear.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = loop.losses_of.linear.weight.detach().clone()
    with pytest.raises(NonFiniteLoss, match="the norm of the gradient is"):
        list(loop.run(0, 3, StopRequest(), lambda done: False))
    assert torch.equal(loop.losses_of.linear.weight, before)


@pytest.mark.parametrize("by_another", [False, True])
def test_a_stop_ends_a_late_run_with_all_of_its_steps_reported(trained, monkeypatch, by_another):
    """A process that gets the signal itself stops after the step that it begins next; what another process asks is
    known when the numbers of that step are read, with one more step begun."""
    loop, stop, begun = trained(late=True), StopRequest(), []
    if by_another:
        loop.processes = Processes(rank=0, world_size=2)
        monkeypatch.setattr(Processes, "sum", lambda self, values: values * 2)
    begin = loop.begin
    loop.begin = lambda step, stop: (begun.append(step), begin(step, stop))[1]
    reports = []
    for report in loop.run(0, 9, stop, lambda done: False):
        reports.append((report.step, report.stop))
        if report.step == 1:  # step 2 has begun
            stop.signal_name = "SIGTERM"
    last = 4 if by_another else 3
    assert reports == [(step, step == last) for step in range(last + 1)]
    assert begun == list(range(last + 1))


def test_an_optimizer_that_cannot_skip_a_step_is_refused():
    loop = make_loop()
    with pytest.raises(TypeError, match="wanted one that takes grad_scale and found_inf"):
        replace(loop, optimizer=torch.optim.SGD(loop.losses_of.parameters(), fused=False))
