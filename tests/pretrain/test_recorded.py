"""When a step of pre-training is recorded as a graph, and that nothing of the host enters its kernels."""

import sys
from types import SimpleNamespace

import pytest
import torch

from dnagpt_fast.batch import PretrainBatch, Windows
from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops import dispatch
from dnagpt_fast.pretrain.job import PretrainingLosses, PretrainingRun
from dnagpt_fast.pretrain.settings import LossSettings, load_config
from dnagpt_fast.training.loop import Loop
from dnagpt_fast.training.optimizer import build_optimizer
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.settings import ConfigError
from tests.pretrain.runs import write_config
from tests.training.recorded_graph import Watch

ON_CUDA = {"attention": "triton", "combined_loss": "triton", "residual_norm": "triton", "mlp": "triton"}


def meta_step() -> Loop:
    """The whole step of a small model with the ops of a card, on tensors without values: every copy from or to the
    host crosses devices, and every read of a value raises."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = DNAGPT.from_config(ModelConfig(19_564, 64, 2, 2, 64, False))
        ids = torch.zeros(4, 64, dtype=torch.int64)
        kinds, gc, places = (
            torch.zeros(4, 64, dtype=torch.uint8),
            torch.zeros(4),
            torch.zeros(4, dtype=torch.int64),
        )
        batch = PretrainBatch(ids, ids, kinds, 61, gc, gc > 0, Windows(places, places, places, places))
    model.number_embedding.requires_grad_(False)
    return Loop(
        losses_of=PretrainingLosses(model, LossSettings(), 6, 366, 5),
        optimizer=build_optimizer(model, lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1),
        batch_at=lambda step, part: batch,
        lr_at=lambda step: 0.1,
        describe=lambda batch: [],
        parts=2,
        device=torch.device("meta"),
    )


def described(call: tuple) -> str:
    """The op and all that the host gives it: numbers as they are, tensors by shape and dtype."""
    func, args, kwargs, _ = call
    shown = torch.utils._pytree.tree_map(
        lambda x: (tuple(x.shape), x.dtype) if isinstance(x, torch.Tensor) else x, (args, kwargs)
    )
    return f"{func} {shown}"


@pytest.mark.parametrize("rate_on", ["device", "host"])
def test_nothing_of_the_host_enters_the_kernels_of_a_step(monkeypatch, rate_on):
    """The same kernels with the same arguments in every step, without a copy from the host and without a read. A rate
    that is a number of the host, as without a graph, is seen as a difference."""
    checks = sys.modules["torch.optim.adam"]
    monkeypatch.setattr(checks, "_device_dtype_check_for_fused", lambda parameter: None)
    monkeypatch.setattr(
        torch, "is_autocast_enabled", lambda device: False
    )  # it does not know the meta device
    loop = meta_step()
    seen = []
    with torch.library._scoped_library("aten", "IMPL") as library, dispatch.using(**ON_CUDA):
        library.impl("_fused_adamw_.tensor_lr", lambda *tensors, **settings: None, "Meta")
        loop._work(loop._step, loop._lr)  # makes the optimizer's state
        for step, rate in ((3, 0.1), (11, 0.003)):
            loop._step.fill_(step), loop._lr.fill_(rate), loop._asked.fill_(float(step == 11))
            with Watch() as watch:
                loop._work(loop._step, loop._lr if rate_on == "device" else rate)
            seen.append([described(call) for call in watch.calls if call[0].namespace != "profiler"])
    assert (seen[0] == seen[1]) == (rate_on == "device")
    names = " ".join(seen[0])
    for op in (
        "attention_packed_forward",
        "combined_loss_backward",
        "residual_norm_backward",
        "mlp_dwide",
        "_fused_adamw_",
    ):
        assert op in names, op


def test_on_the_cpu_no_step_is_recorded(tmp_path):
    config = load_config(write_config(tmp_path))
    job = PretrainingRun(config, Processes())
    assert job.recorded == (False, "on cpu")
    assert "step not a CUDA graph (on cpu; parallel.cuda_graph)" in job.arithmetic
    asked = load_config(write_config(tmp_path), ["parallel.cuda_graph=true"])
    with pytest.raises(ConfigError, match=r"parallel.cuda_graph = true on cpu: wanted false or auto"):
        _ = PretrainingRun(asked, Processes()).recorded


@pytest.mark.parametrize(
    ("changes", "recorded", "why"),
    [
        ({}, True, "6.6 ms to run, 7.2 ms to launch"),
        ({"samples": 64}, False, "52.6 ms to run, 7.2 ms to launch"),
        ({"processes": Processes(0, 2)}, False, "with several processes"),
        ({"checkpointing": True}, False, "with parallel.activation_checkpointing"),
        ({"by_device": False}, False, "with batches that the host helps to make"),
        ({"samples": 64, "wanted": True}, True, "parallel.cuda_graph = true"),
        ({"wanted": False}, False, "parallel.cuda_graph = false"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_small_steps_are_recorded_on_cuda(changes, recorded, why):
    given = {
        "samples": 8,
        "processes": Processes(),
        "checkpointing": False,
        "by_device": True,
        "wanted": "auto",
    }
    given |= changes
    parallel = SimpleNamespace(activation_checkpointing=given["checkpointing"], cuda_graph=given["wanted"])
    job = SimpleNamespace(
        config=SimpleNamespace(parallel=parallel),
        device=torch.device("cuda", 0),
        processes=given["processes"],
        drawer=SimpleNamespace(can_be_recorded=given["by_device"]),
        cost=SimpleNamespace(flops=20.8e12 * given["samples"] / 64, peak_flops=989e12),
        model=SimpleNamespace(num_layers=12),
        parts=1,
    )
    found, reason = PretrainingRun.recorded.func(job)
    assert (found, reason.startswith(why)) == (recorded, True), reason


def test_blocks_of_a_recorded_step_are_not_compiled_unless_asked_for():
    """The graph has the gain already, and a capture of compiled blocks failed on a card."""
    parallel = SimpleNamespace(compile_blocks="auto")
    job = SimpleNamespace(
        config=SimpleNamespace(parallel=parallel),
        recorded=(True, "small"),
        device=torch.device("cpu"),
        steps=5000,
    )
    assert PretrainingRun.compiled.func(job) == (False, "the step is a CUDA graph")
    parallel.compile_blocks = True
    assert PretrainingRun.compiled.func(job)[0]
