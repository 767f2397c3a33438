"""How the processes of a run find each other, in threads that share one store as torchrun's processes do."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from dnagpt_fast.training.processes import LostProcess, Processes, _is_of_an_exchange

WAIT = timedelta(seconds=30)


@pytest.fixture
def torchruns_store(monkeypatch):
    """It outlives the processes."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    return store


def meet(ranks: list[int], world_size: int, wait: timedelta = WAIT) -> list[dist.Store]:
    """The stores of these processes; the first rank comes first."""
    with ThreadPoolExecutor(len(ranks)) as threads:
        return list(threads.map(lambda rank: Processes(rank, world_size)._meet(wait), ranks))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_a_second_start_sees_nothing_of_the_first(torchruns_store, order):
    first = meet(order, 3)
    first[0].set("address", "of a process that is gone")
    assert first[1].get("address") == b"of a process that is gone"
    for _ in range(3):
        again = meet(order, 3)
        assert not any(store.check(["address"]) for store in again)
        again[0].set("address", "new")
        assert {store.get("address") for store in again} == {b"new"}


def test_a_start_that_was_never_completed_is_ignored(torchruns_store):
    with pytest.raises(LostProcess, match=r"process 1 of 3: not there within 0\.3 s: process 0"):
        meet([1], 3, timedelta(seconds=0.3))
    with pytest.raises(LostProcess, match=r"process 0 of 3: not there within 0\.3 s: process 1, process 2"):
        meet([0], 3, timedelta(seconds=0.3))
    # Process 1 enters the round that is still open, and leaves it when process 0 opens another one.
    with ThreadPoolExecutor(1) as early:
        waiting = early.submit(lambda: Processes(1, 3)._meet(WAIT))
        stores = [*meet([2, 0], 3), waiting.result()]
    stores[0].set("one", "round")
    assert all(store.check(["one"]) for store in stores)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.1]:29400",
            True,
        ),
        ("Application timeout caused pair closure", True),  # gloo's own, though it does not say so
        ("The size of tensor a (3) must match the size of tensor b (4)", False),
    ],
)
def test_failed_exchanges_are_distinguished_from_other_errors(text, is_one):
    assert _is_of_an_exchange(RuntimeError(text)) == is_one
