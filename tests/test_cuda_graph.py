"""CudaGraph: the calls that it makes, with a stand-in for CUDA; tests/gpu/test_graphs.py has it on a card."""

from contextlib import contextmanager

import pytest
import torch

from dnagpt_fast.cuda_graph import CudaGraph


@pytest.fixture
def calls(monkeypatch):
    made = []

    class Stream:
        device = torch.device("cuda", 1)

        def __init__(self, device=None):
            self.name = "side" if device is None or device.index == 1 else "current"

        def wait_stream(self, other):
            made.append(f"{self.name} waits for {other.name}")

    class Graph:
        def replay(self):
            made.append("replay")

    @contextmanager
    def entered(what, **options):
        made.append((what, options))
        yield
        made.append(f"end of {what}")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(torch.device("cuda", 0)))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: entered(f"stream {stream.name}"))
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered(f"device {device.index}"))
    monkeypatch.setattr(
        torch.cuda, "graph", lambda graph, stream, **options: entered(f"capture on {stream.name}", **options)
    )
    return made


def test_a_call_before_the_capture_runs_on_the_stream_of_the_capture(calls):
    graph = CudaGraph(torch.device("cuda", 1))
    assert graph.warm(lambda: calls.append("work") or 3) == 3
    assert calls == [
        "side waits for current", ("stream side", {}), "work", "end of stream side", "current waits for side",
    ]  # fmt: skip


def test_other_threads_may_call_cuda_during_a_capture(calls):
    """In the default mode an allocation by the writer of a checkpoint would end the capture."""
    graph = CudaGraph(torch.device("cuda", 1))
    assert graph.capture(lambda: calls.append("work") or 5) == 5
    assert calls[:3] == [
        ("device 1", {}), ("capture on side", {"capture_error_mode": "thread_local"}), "work",
    ]  # fmt: skip
    graph.replay()
    assert calls[-1] == "replay"
