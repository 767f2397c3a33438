"""CUDA graphs: attention, loss, decoding, the sampler and a model are captured, and replayed with the same bits."""

import threading
from collections.abc import Callable, Sequence

import pytest
import torch

from benchmarks.gpu_model import Steps
from dnagpt_fast import ops
from dnagpt_fast.cuda_graph import CudaGraph
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.ops import dispatch
from dnagpt_fast.training.loop import StopRequest
from tests.ops.packed_genomes import packed_genome, random_text

pytestmark = pytest.mark.gpu

TRITON = {"attention": "triton", "attention_decode": "triton", "combined_loss": "triton"}


def captured(work: Callable[[], Sequence[torch.Tensor]]) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor]]:
    """The graph of `work` and its outputs. One call before: Triton compiles and loads a kernel at its first call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = list(work())
    return graph, outputs


def check(work: Callable[[], Sequence[torch.Tensor]], change: Callable[[], None]) -> None:
    """A replay gives the bits of a call, also after `change` wrote other values into the inputs."""
    graph, outputs = captured(work)
    for _ in range(2):
        graph.replay()
        torch.cuda.synchronize()
        replayed = [x.clone() for x in outputs]
        assert all(torch.equal(a, b) for a, b in zip(replayed, work(), strict=True))
        change()


@pytest.mark.parametrize("size", [32, 64, 128])
def test_attention(cuda, size):
    qkv = torch.randn(2, 512, 3, 4, size, device=cuda, dtype=torch.bfloat16, requires_grad=True)
    do = torch.randn(2, 4, 512, size, device=cuda, dtype=torch.bfloat16)

    def work():
        with dispatch.using(**TRITON):
            o = ops.attention_packed(qkv)
        return o.detach(), *torch.autograd.grad(o, qkv, do)

    check(work, lambda: qkv.data.normal_())


def test_decoding(cuda):
    q = torch.randn(3, 4, 1, 64, device=cuda, dtype=torch.bfloat16)
    cache = torch.randn(2, 3, 4, 300, 64, device=cuda, dtype=torch.bfloat16)
    lengths = torch.tensor([300, 7, 129], device=cuda)

    def work():
        with dispatch.using(**TRITON):
            return (ops.attention_decode(q, *cache, lengths),)

    check(work, lambda: lengths.sub_(5))


@pytest.mark.parametrize("implementation", ["triton", "products"])
@pytest.mark.parametrize("rows", [300, 7000])
def test_loss(cuda, rows, implementation):
    x = torch.randn(rows, 768, device=cuda, dtype=torch.bfloat16, requires_grad=True)
    w = torch.randn(19_564, 768, device=cuda, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(0, 19_564, (rows,), device=cuda)

    def work():
        with dispatch.using(combined_loss=implementation):
            total = ops.combined_loss(x, w, targets).total
        return total.detach(), *torch.autograd.grad(total, (x, w))

    check(work, lambda: targets.random_(0, 19_564))


def test_sampler(cuda):
    genome = packed_genome(random_text(50_000, seed=1, n_every=300))
    sampler = ops.BatchSampler([genome.to(cuda)], WindowSampler([genome], 6 * 37, seed=3).tables, 3, 37)

    def work():
        made = sampler(0, 64)
        return [x for x in made if isinstance(x, torch.Tensor) and x.is_cuda]

    check(work, lambda: None)


@pytest.mark.parametrize("compiled", [False, True])
def test_whole_steps_of_pre_training(cuda, compiled):
    """Samples, forward, backward, clipping and update in one graph, beside the same steps launched one kernel at a
    time: the same bits, with the rate and the samples of each step."""

    def trained(record: bool) -> tuple[list[torch.Tensor], list[dict[str, float]]]:
        steps = Steps(ModelConfig(19_564, 128, 2, 4, 256, False), 4, cuda, 1 << 16, bf16=True)
        if compiled:
            steps.model.compile_blocks()
        loop = steps.loop
        loop.graph, loop.lr_at = CudaGraph(), lambda step: 1e-3 / (1 + step)
        losses = []
        for step in range(8):
            if not record:
                loop._warm_steps = 0
            losses.append(loop.one_step(step, StopRequest()).losses)
        assert (loop._recorded is not None) == record
        return [p.detach().clone() for p in steps.model.parameters()], losses

    (weights, losses), (launched, wanted) = trained(True), trained(False)
    assert losses == wanted
    assert all(map(torch.equal, weights, launched))


def test_forward_and_backward_of_a_model(cuda):
    """The weights are updated outside."""
    steps = Steps(ModelConfig(19_564, 128, 2, 4, 256, False), 4, cuda, 1 << 16, bf16=True)
    batch = steps.batch()
    parameters = [p for p in steps.model.parameters() if p.requires_grad]

    def work():
        loss = steps.loss(batch)
        return loss.detach(), *(
            g for g in torch.autograd.grad(loss, parameters, allow_unused=True) if g is not None
        )

    def change():
        with torch.no_grad():
            for p in parameters:
                p.mul_(0.99)

    check(work, change)


def test_another_thread_may_call_cuda_during_a_capture(cuda):
    """As the writer of a checkpoint does: it allocates and copies to the host while a step is recorded."""
    x, copied = torch.arange(1000.0, device=cuda), []

    def elsewhere() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            copied.append((torch.ones(1 << 20, device=cuda) * 3).cpu())

    def work() -> torch.Tensor:
        y = x * 2
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return y + 1

    graph = CudaGraph(torch.device(cuda))
    graph.warm(work)
    y = graph.capture(work)
    x += 5
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, x * 2 + 1)
    assert len(copied) == 2
    assert all(bool((one == 3).all()) for one in copied)
