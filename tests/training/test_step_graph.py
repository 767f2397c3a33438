"""A recorded step gives the bits of a launched one, reads nothing on the host, and depends on nothing of the host."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dnagpt_fast.training.loop import Loop, NonFiniteLoss, StopRequest
from dnagpt_fast.training.optimizer import build_optimizer
from dnagpt_fast.training.processes import Processes
from tests.training.recorded_graph import HostRead, RecordedGraph, Watch

SAMPLES = torch.randn(80, 3, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self, power: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.norm, self.head = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)
        self.power = power

    def forward(self, batch):
        made = self.head(self.norm(self.inner(batch)).tanh())
        return {"loss": (made**self.power).mean(), "first": batch[0, 0]}


def make_loop(graph, samples=SAMPLES, muon=False, parts=1, **settings) -> Loop:
    model = Net()
    size = 8 // parts

    def batch_at(step, part):
        first = torch.as_tensor(step) * 8 + part * size
        return samples.index_select(0, first + torch.arange(size))

    return Loop(
        losses_of=model,
        optimizer=build_optimizer(
            model, lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1,
            muon={model.inner.weight: 1, model.head.weight: 1} if muon else None,
        ),
        batch_at=batch_at,
        lr_at=lambda step: 0.1 / (1 + step),
        describe=lambda batch: [f"sample {row.tolist()}" for row in batch],
        clip_norm=0.5,
        parts=parts,
        graph=graph,
        **settings,
    )  # fmt: skip


def state_of(loop: Loop) -> list[torch.Tensor]:
    moments = [v for state in loop.optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
    return [x.detach().clone() for x in (*loop.losses_of.parameters(), *moments)]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_recorded_step_is_a_launched_one_bit_for_bit(late, muon, parts):
    graph = RecordedGraph()
    recorded = make_loop(graph, muon=muon, parts=parts, late=late)
    launched = make_loop(None, muon=muon, parts=parts)
    reports = [list(loop.run(0, 9, StopRequest(), lambda done: False)) for loop in (recorded, launched)]
    assert (graph.warmed, graph.captured, graph.replayed) == (2, 1, 7)
    # the rate is a float32 on the device, a Python number where steps are launched
    for a, b in zip(*map(state_of, (recorded, launched)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(*reports, strict=True):
        assert a.losses == pytest.approx(b.losses, rel=1e-5)
        assert (a.step, a.lr, a.stop) == (b.step, b.lr, b.stop)
    # bit for bit beside a loop that never records, with the same rate on the device
    never = make_loop(RecordedGraph(), muon=muon, parts=parts)
    for step in range(9):
        never._warm_steps = 0
        never.one_step(step, StopRequest())
    assert never.graph.captured == 0
    assert all(map(torch.equal, state_of(recorded), state_of(never)))


def test_the_optimizers_settings_are_those_of_any_run():
    """A checkpoint of a recorded run has no tensor as its rate, and is not marked as capturable."""
    recorded, launched = make_loop(RecordedGraph()), make_loop(None)
    for loop in (recorded, launched):
        list(loop.run(0, 5, StopRequest()))
    groups = [loop.optimizer.state_dict()["param_groups"] for loop in (recorded, launched)]
    assert groups[0] == groups[1]


@pytest.mark.parametrize("late", [False, True])
def test_a_recorded_step_that_is_not_finite_changes_nothing(late):
    samples = SAMPLES.clone()
    samples[45, 1] = float("nan")  # in step 5, a replay
    loop = make_loop(RecordedGraph(), samples, late=late)
    with pytest.raises(NonFiniteLoss, match="step 5, process 0 of 1: the loss is nan") as caught:
        list(loop.run(0, 9, StopRequest(), lambda done: False))
    assert str(samples[44].tolist()) in str(caught.value)
    twin = make_loop(RecordedGraph())
    list(twin.run(0, 5, StopRequest()))
    assert all(map(torch.equal, state_of(loop), state_of(twin)))


def test_a_stop_is_seen_by_a_recorded_step():
    loop, stop = make_loop(RecordedGraph()), StopRequest()
    for report in loop.run(0, 9, stop):
        if report.step == 5:
            stop.signal_name = "SIGTERM"
    assert (report.step, report.stop) == (6, True)


def test_a_change_of_variant_records_again():
    """Here the exponent of the loss, which the host decides: as the share of the base-level loss in pre-training."""
    loops = [make_loop(RecordedGraph()), make_loop(RecordedGraph())]

    def variant(of):
        def chosen(step):
            of.losses_of.power = 2 if step < 5 else 4
            return of.losses_of.power

        return chosen

    for loop in loops:
        loop.variant = variant(loop)
    list(loops[0].run(0, 10, StopRequest()))
    for step in range(10):
        loops[1]._warm_steps = 0
        loops[1].one_step(step, StopRequest())
    assert (loops[0].graph.warmed, loops[0].graph.captured) == (4, 2)
    assert all(map(torch.equal, *map(state_of, loops)))


def test_a_read_on_the_host_is_found():
    class Reads(Net):
        def forward(self, batch):
            return {"loss": super().forward(batch)["loss"] * float(batch[0, 0])}

    loop = make_loop(RecordedGraph())
    loop.losses_of = Reads()
    with pytest.raises(RuntimeError, match="_local_scalar_dense"):
        list(loop.run(0, 4, StopRequest()))


def test_a_copy_between_devices_is_found():
    with Watch(), pytest.raises(HostRead, match=r"on \['cpu', 'meta'\]"):
        torch.ones(3).to("meta")


def test_several_processes_are_refused():
    with pytest.raises(ValueError, match="a recorded step is for one process"):
        replace(make_loop(RecordedGraph()), processes=Processes(0, 2))


def test_a_step_that_cannot_be_recorded_names_the_settings():
    class Refusing(RecordedGraph):
        def capture(self, work):
            raise RuntimeError("operation not permitted when stream is capturing")

    steps = make_loop(Refusing()).run(0, 4, StopRequest())
    with pytest.raises(
        RuntimeError, match=r"recorded as a CUDA graph: operation not .*parallel\.cuda_graph = false"
    ):
        list(steps)
