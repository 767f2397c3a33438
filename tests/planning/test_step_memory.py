"""The memory model: against the peaks of real steps on the CPU, and its dependence on the settings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dnagpt_fast.model.config import PRESETS, ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.planning.step_memory import StepMemory, step_memory, trained_count

SMALL = ModelConfig(1000, max_len=64, num_layers=2, num_heads=4, embedding_dim=32, bias=True)
ROOT = Path(__file__).resolve().parents[2]
# The need of a step without the holes in glibc's heap (a tenth at 0.1B, benchmarks/LOG.md): freed blocks of 1 MiB and
# more are returned to the system at once.
RETURN_FREED = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}
# Model, samples, tokens. Each of a step's three moments is the peak of one: loss head, optimizer, a block's backward.
QUICK = [
    (ModelConfig(4096, max_len=256, num_layers=4, num_heads=4, embedding_dim=256), 4, 256),
    (ModelConfig(19_564, max_len=128, num_layers=2, num_heads=4, embedding_dim=256), 2, 128),
    (ModelConfig(1000, max_len=256, num_layers=6, num_heads=4, embedding_dim=192), 8, 256),
]
LONGER = [
    (ModelConfig(4096, max_len=256, num_layers=4, num_heads=4, embedding_dim=256), 16, 256),
    (ModelConfig(4096, max_len=64, num_layers=12, num_heads=4, embedding_dim=256), 2, 64),
    (ModelConfig(1000, max_len=512, num_layers=6, num_heads=8, embedding_dim=128), 8, 512),
    (ModelConfig(19_564, max_len=128, num_layers=4, num_heads=8, embedding_dim=512, bias=True), 4, 128),
    (PRESETS["dna_gpt0.1b_m"], 4, 512),
]


# Of two processes: replicas, shards, recomputed blocks.
WIDE = ModelConfig(4096, max_len=64, num_layers=6, num_heads=8, embedding_dim=512)
TOGETHER = [
    (QUICK[0][0], 8, 256, {"checkpointing": True}),
    (QUICK[0][0], 4, 256, {"processes": 2}),
    (WIDE, 2, 64, {"processes": 2}),
    (QUICK[0][0], 4, 256, {"processes": 2, "sharding": "fsdp"}),
    (WIDE, 2, 64, {"processes": 2, "sharding": "fsdp"}),
]


def planned(config: ModelConfig, samples: int, tokens: int, ways: dict) -> StepMemory:
    processes, sharded = ways.get("processes", 1), ways.get("sharding") == "fsdp"
    return step_memory(
        config,
        samples,
        tokens,
        shards=processes if sharded else 1,
        replicas=1 if sharded else processes,
        checkpointing=ways.get("checkpointing", False),
    )


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize(
    "shapes",
    [pytest.param(shapes, marks=pytest.mark.slow) for shapes in (QUICK, LONGER, TOGETHER)],
    ids=["quick", "longer", "together"],
)
def test_measured_peaks_are_within_a_tenth(shapes):
    shapes = [(config, samples, tokens, *(ways or [{}])) for config, samples, tokens, *ways in shapes]
    asked = json.dumps([[config.to_dict(), *rest] for config, *rest in shapes])
    done = subprocess.run(
        [sys.executable, "-m", "tests.planning.measure_step_peak", asked],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **RETURN_FREED, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for shape, peak in zip(shapes, json.loads(done.stdout), strict=True):
        assert planned(*shape).total == pytest.approx(peak, rel=0.1), f"{shape}: {planned(*shape)}"


def test_trained_parameters_are_all_except_the_number_embedding():
    for config in (PRESETS["dna_gpt0.1b_m"], SMALL):
        with torch.device("meta"):
            model = DNAGPT.from_config(config)
        model.number_embedding.requires_grad_(False)
        assert trained_count(config) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_sharding_checkpointing_and_samples_change_the_right_parts():
    config = PRESETS["dna_gpt3b_m"]

    def on_gpu(samples=4, **settings) -> StepMemory:
        return step_memory(config, samples, 512, device="cuda", precision="bf16", **settings)

    whole, sharded = on_gpu(), on_gpu(shards=8)
    assert sharded.optimizer == whole.optimizer // 8
    assert sharded.total < whole.total
    # enough samples for the activations to be the peak
    many = on_gpu(32)
    assert on_gpu(64).activations == 2 * many.activations
    assert on_gpu(64).optimizer == many.optimizer
    assert on_gpu(shards=8, accumulating=True).total > sharded.total
    assert on_gpu(32, checkpointing=True).activations < many.activations / 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "0 samples"),
        ({"device": "tpu"}, "tpu"),
        ({"precision": "fp8"}, "fp8"),
        ({"shards": 0}, "0 shards"),
    ],
)
def test_settings_that_do_not_fit_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        step_memory(**{"config": SMALL, "samples": 1, "tokens": 8, **settings})
