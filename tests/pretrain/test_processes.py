"""Several processes train as one does: the same losses, and resuming with another number of processes."""

import json
import signal
from pathlib import Path

import pytest
import torch

from dnagpt_fast.pretrain.run import load_run, pretrain
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.figures import STAGES
from dnagpt_fast.training.log import read_metrics
from tests.pretrain.runs import metrics, write_config
from tests.pretrain.torchrun_jobs import finish, same_curve, torchrun, wait_for_steps
from tests.training.several_processes import copy, do_together, everything_in, same_bits

# Each with other settings that can be combined: shards, recomputed blocks, gradients summed over
# micro-batches.
WAYS = {
    "ddp": ["run.micro_batch_size=2"],
    "fsdp": ["parallel.sharding=fsdp"],
    "fsdp, all": [
        "parallel.sharding=fsdp", "parallel.activation_checkpointing=true", "run.micro_batch_size=2",
    ],
    "muon": ["optimizer.kind=muon", "run.micro_batch_size=2"],
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums are taken in the same order as in the processes the tests start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """settings.toml, and the runs of one process: straight/ and, with Muon, muon/"""
    folder = tmp_path_factory.mktemp("runs")
    path = write_config(folder)
    path.write_text(path.read_text().replace("num_layers = 1", "num_layers = 2"))
    pretrain(load_config(path), folder / "straight")
    pretrain(load_config(path, ["optimizer.kind=muon"]), folder / "muon")
    return folder


def check_ways(folder: Path, world_size: int) -> None:
    config = str(folder / "settings.toml")
    runs = {way: folder / f"{world_size}, {way}" for way in WAYS}
    do_together(
        world_size,
        [{"do": "train", "config": config, "run": str(runs[way]), "overrides": WAYS[way]} for way in WAYS],
        folder,
    )
    for way, run in runs.items():
        alone = folder / ("muon" if way == "muon" else "straight")
        wanted = json.loads((alone / "validation.json").read_text())
        same_curve(run, alone)
        for line in read_metrics(run):
            shares = [line[f"share_{stage}"] for stage in STAGES]
            assert sum(shares) == pytest.approx(1)
            assert all(share > 0 for share in shares), line
        report = json.loads((run / "validation.json").read_text())
        assert report.keys() == wanted.keys()
        for name, value in report.items():
            assert value == pytest.approx(wanted[name], rel=1e-4), (run, name)


@pytest.mark.slow
def test_two_processes_are_one_and_one_reads_their_checkpoints(folder):
    check_ways(folder, 2)
    config = str(folder / "settings.toml")
    for run, kind in (("2, ddp", "adamw"), ("2, fsdp", "adamw"), ("2, muon", "muon")):
        kept = checkpoint.newest(folder / run)
        assert [path.name for path in sorted(kept.path.glob("*.distcp"))] == ["__0_0.distcp", "__1_0.distcp"]
        copy(config, str(folder / run), str(folder / "alone"), [f"optimizer.kind={kind}"])
        before, after = everything_in(kept.path), everything_in(checkpoint.newest(folder / "alone").path)
        assert same_bits(before, after)
        model, _, _ = load_run(folder / run)
        weights = {name: tensor for name, tensor in before.items() if name.startswith("model.")}
        assert same_bits({f"model.{name}": tensor for name, tensor in model.state_dict().items()}, weights)
        assert before["optimizer.state.transformer.wte.weight.exp_avg_sq"].any()
        assert (kind == "muon") == any(name.endswith(".momentum") for name in before)


@pytest.mark.slow
def test_four_processes_are_one(folder):
    check_ways(folder, 4)


@pytest.mark.slow
def test_a_checkpoint_keeps_its_bits_through_any_number_of_processes(folder):
    """fsdp 2 -> fsdp 4 -> 1 -> ddp 2 -> fsdp 2, read and written again each time."""
    config, sharded = str(folder / "settings.toml"), ["parallel.sharding=fsdp"]
    ways = [(2, sharded), (4, sharded), (1, []), (2, []), (2, sharded)]
    source = folder / "straight"
    wanted = everything_in(checkpoint.newest(source).path)
    for i, (world_size, overrides) in enumerate(ways):
        target = folder / f"copy-{i}"
        job = {"config": config, "overrides": overrides, "checkpoint": str(source), "run": str(target)}
        do_together(world_size, [{"do": "copy", **job}], folder)
        kept = checkpoint.newest(target).path
        assert len(list(kept.glob("*.distcp"))) == world_size
        assert same_bits(everything_in(kept), wanted)
        source = target


@pytest.mark.slow
def test_shards_in_bfloat16_learn_as_one_process_does(folder):
    """Weights gathered in bfloat16, gradients summed in float32: the curve of one process under autocast."""
    config, half = str(folder / "settings.toml"), ["run.precision=bf16"]
    pretrain(load_config(config, half), folder / "half")
    job = {"config": config, "run": str(folder / "half2"), "overrides": [*half, "parallel.sharding=fsdp"]}
    do_together(2, [{"do": "train", **job}], folder)
    for one, two in zip(metrics(folder / "half2"), metrics(folder / "half"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-2), one["step"]
    kept = everything_in(checkpoint.newest(folder / "half2").path)
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}


@pytest.mark.slow
def test_two_then_four_then_one_process(tmp_path, folder):
    """Stopped by SIGTERM on two, resumed and stopped on four, finished on one: no sample is lost or
    repeated."""
    run, config = tmp_path / "run", str(folder / "settings.toml")
    for world_size, steps in ((2, 3), (4, 7)):
        process = torchrun(
            world_size, "--config", config, "--out", str(run), "--resume", module=["dnagpt_fast.pretrain"]
        )
        wait_for_steps(run, steps, process)
        process.send_signal(signal.SIGTERM)
        output = finish(process)
        assert "stopped by SIGTERM" in output, output
        assert checkpoint.newest(run).step < 12
    pretrain(load_config(config), run, resume=True)
    assert [record["step"] for record in metrics(run)] == list(range(12))
    same_curve(run, folder / "straight")
