"""Whole pre-training runs on real human sequence: they learn, resume bit for bit, and end correctly."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from dnagpt_fast.pretrain import mix
from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.run import load_run, pretrain
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.training import checkpoint, run_folder
from dnagpt_fast.training.loop import NonFiniteLoss
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.settings import ConfigError
from tests.pretrain.runs import CONTIG, GENOME, ROOT, metrics, start, write_config


@pytest.fixture(autouse=True)
def one_thread():
    """Sums are taken in the same order as in the processes the tests start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def settings(tmp_path):
    def load(*overrides: str):
        return load_config(write_config(tmp_path), overrides)

    return load


def same_weights(one, other) -> bool:
    first, second = (checkpoint.newest(run).weights() for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_sixty_steps_learn_more_than_token_frequencies(tmp_path, settings):
    config = settings("run.steps=60", "run.batch_size=16", "checkpoint.every_steps=0")
    outcome = pretrain(config, tmp_path / "run")
    job = PretrainingRun(config, Processes())
    targets = torch.cat([job.batch_at(step, 0).targets[:, :-1].flatten() for step in range(60)])
    share = targets.bincount().double() / len(targets)
    entropy = -float((share[share > 0] * share[share > 0].log()).sum())
    losses = [record["next_token"] for record in metrics(tmp_path / "run")]
    assert losses[0] > entropy
    assert sum(losses[-10:]) / 10 < entropy
    assert outcome.steps == 60
    # 189 tokens, of which chance would give each k-mer ln 189 / 3 nats a base pair.
    assert outcome.report.nats_per_bp < math.log(4) < math.log(189) / 3


def test_a_run_in_two_parts_is_the_straight_run_bit_for_bit(tmp_path, settings):
    pretrain(settings(), tmp_path / "straight")
    first = settings()
    job_folder = tmp_path / "parts"
    process = start(
        "pretrain", "--config", str(write_config(tmp_path)), "--out", str(job_folder),
    )  # fmt: skip
    # Killed as soon as the first checkpoint is complete, in some later step.
    deadline = time.monotonic() + 60
    while not (job_folder / "checkpoints" / "step-00000004").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    outcome = pretrain(first, job_folder, resume=True)
    assert outcome.steps == 12
    assert metrics(job_folder) == metrics(tmp_path / "straight")
    assert [record["step"] for record in metrics(job_folder)] == list(range(12))
    assert same_weights(job_folder, tmp_path / "straight")
    reports = [
        json.loads((run / "validation.json").read_text()) for run in (job_folder, tmp_path / "straight")
    ]
    assert reports[0] == reports[1]


def test_sigterm_leaves_a_checkpoint_and_a_message(tmp_path, settings):
    run = tmp_path / "run"
    process = start(
        "pretrain", "--config", str(write_config(tmp_path)), "--out", str(run), "--set", "run.steps=100000",
        "--set", "checkpoint.every_steps=0",
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM
    steps = len(metrics(run))
    assert f"stopped by SIGTERM after step {steps} of 100000" in " ".join(output.split())
    assert "--resume" in output
    assert checkpoint.newest(run).step == steps
    # It continues from there; another number of steps would be another cosine, so the settings must be the
    # same.
    with pytest.raises(ConfigError, match=r"run\.steps was 100000, is 12"):
        pretrain(settings(), run, resume=True)


def test_micro_batches_and_their_number_change_rounding_only(tmp_path, settings):
    pretrain(settings("run.steps=5", "checkpoint.every_steps=0"), tmp_path / "whole")
    pretrain(
        settings("run.steps=5", "checkpoint.every_steps=0", "run.micro_batch_size=2"), tmp_path / "parts"
    )
    for one, other in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "parts"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_processes_take_the_samples_of_one_process(settings):
    config = settings()
    alone = PretrainingRun(config, Processes())
    for world_size in (2, 4):
        jobs = [PretrainingRun(config, Processes(rank, world_size)) for rank in range(world_size)]
        for step in (0, 7):
            whole = alone.batch_at(step, 0)
            parts = torch.cat([job.batch_at(step, 0).token_ids for job in jobs])
            assert torch.equal(parts, whole.token_ids)


def test_nan_names_step_and_windows_and_keeps_the_last_checkpoint(tmp_path, settings, monkeypatch):
    run = tmp_path / "run"
    original = PretrainingRun.batch_at

    def poisoned(self, step, part):
        batch = original(self, step, part)
        if step == 6:
            batch.gc_target[0] = float("nan")
        return batch

    monkeypatch.setattr(PretrainingRun, "batch_at", poisoned)
    with pytest.raises(NonFiniteLoss) as caught:
        pretrain(settings(), run)
    message = str(caught.value)
    assert message.startswith("step 6, process 0 of 1: the loss is nan")
    job = PretrainingRun(settings(), Processes())
    windows = original(job, 6, 0).windows
    for start_bp in windows.start_bp.tolist():
        assert f"{GENOME} {CONTIG}:{start_bp}-{start_bp + job.maker.length_bp} " in message
    assert [record["step"] for record in metrics(run)] == list(range(6))
    assert checkpoint.newest(run).step == 4


def test_no_training_window_touches_a_held_out_base(settings):
    job = PretrainingRun(settings("data.reverse_complement_share=0.3", "data.held_out_tail=0.5"), Processes())
    windows = job.sampler.sample(0, 20_000)
    assert int((windows.start_bp + job.maker.length_bp).max()) <= 900_000
    # Up to the last base before it: no window is excluded that does not overlap the range.
    assert int((windows.start_bp + job.maker.length_bp).max()) > 899_500
    assert job.record()["genomes"][0]["held_out"] == (f"{CONTIG}:900000-1000000",)


def test_the_checkpoint_has_the_record_of_the_run(tmp_path, settings):
    pretrain(settings("run.steps=2", "schedule.warmup_steps=1"), tmp_path / "run")
    record = checkpoint.newest(tmp_path / "run").config()
    assert record == json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["genomes"][0]["held_out"] == [f"{CONTIG}:900000-1000000"]
    assert record["report"]["implementations"]["combined_loss"]["cpu"]
    assert record["settings"]["run"]["precision"] == "fp32"  # not "auto"
    assert record["versions"]["torch"] == torch.__version__
    model, vocabulary, _ = load_run(tmp_path / "run")
    assert len(vocabulary) == model.vocab_size == 189
    assert not model.training


def test_a_folder_with_a_run_is_not_overwritten(tmp_path, settings):
    short = settings("run.steps=2", "schedule.warmup_steps=1")
    pretrain(short, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run already"):
        pretrain(short, tmp_path / "run")
    again = pretrain(short, tmp_path / "run", resume=True)
    assert again.steps == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.seed=1", "data.seed was 0, is 1"),
        ("optimizer.lr=0.5", r"optimizer.lr was 0.01, is 0.5"),
        (f'data.genomes=[{{path="{GENOME}",held_out=["{CONTIG}:0-100000"]}}]', r"held_out of .* was"),
    ],
)
def test_a_run_is_not_resumed_with_what_would_change_it(tmp_path, settings, override, message):
    short = ("run.steps=2", "schedule.warmup_steps=1")
    pretrain(settings(*short), tmp_path / "run")
    with pytest.raises(ConfigError, match=message):
        pretrain(settings(*short, override), tmp_path / "run", resume=True)


def test_a_long_list_of_held_out_ranges_is_recorded_by_its_hash(tmp_path, settings, monkeypatch):
    short = ("run.steps=2", "schedule.warmup_steps=1")
    pretrain(settings(*short), tmp_path / "run")  # with the list, as earlier versions recorded all
    monkeypatch.setattr(mix, "MOST_RECORDED", 0)
    job = PretrainingRun(settings(*short), Processes())
    assert re.fullmatch("1 ranges, sha256 [0-9a-f]{64}", job.record()["genomes"][0]["held_out"])
    longer = ("run.steps=3", *short[1:])
    assert pretrain(settings(*longer), tmp_path / "run", resume=True).steps == 3
    other = f'data.genomes=[{{path="{GENOME}",held_out=["{CONTIG}:0-100000"]}}]'
    with pytest.raises(ConfigError, match=r"held_out of .* was '1 ranges, sha256"):
        pretrain(settings(*longer, other), tmp_path / "run", resume=True)


def test_a_record_that_could_not_be_read_again_is_refused_before_the_run(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(run_folder, "MOST_BYTES", 2000)
    with pytest.raises(
        ConfigError, match=r"config.json would have [0-9,]+ bytes, but at most 2,000 are read"
    ):
        pretrain(settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_genome_that_moved_is_the_same_genome(tmp_path, settings):
    short = ("run.steps=2", "schedule.warmup_steps=1")
    pretrain(settings(*short), tmp_path / "run")
    os.symlink(GENOME, tmp_path / "moved.2bit")
    moved = f'data.genomes=[{{path="{tmp_path}/moved.2bit",held_out=["{CONTIG}:900000-1000000"]}}]'
    assert pretrain(settings(*short, moved), tmp_path / "run", resume=True).steps == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.micro_batch_size=3", "run.micro_batch_size = 3 does not divide the 8 samples"),
        ("data.n_kmers=41", "model.max_len is 45"),
        ("model.num_heads=5", "model: embedding_dim = 32 is no multiple of num_heads = 5"),
        ("model.name=gpt5", "unknown model name"),
        ("run.device=tpu", "wanted auto, cpu or cuda"),
        ("schedule.warmup_steps=13", "warm-up of 13 steps in a run of 12"),
        (f'data.genomes=[{{path="{GENOME}",species="dragon"}}]', "species 'dragon': wanted one of human"),
        (f'data.genomes=[{{path="{GENOME}",held_out=["chr1"]}}]', "no contig 'chr1' in"),
        (f'data.genomes=[{{path="{GENOME}",held_out=["{CONTIG}:5-2000000"]}}]', "wanted 0 <= start < end"),
        ("data.genomes=[]", "names no genome"),
        (f'data.genomes=[{{path="{GENOME}",held_out=["{CONTIG}"]}}]', "no window of 120 bp fits"),
        (f'data.genomes=[{{path="{GENOME}",held_out=["{CONTIG}:0-50"]}}]', "no held-out range has room"),
        (
            "run.residual=bf16",
            "run.residual = 'bf16' with run.precision = 'fp32' on cpu: wanted run.precision = 'bf16'",
        ),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(tmp_path, settings, override, message):
    with pytest.raises(ValueError, match=message):
        pretrain(settings(override), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_held_out_ranges_there_is_no_report(tmp_path, settings):
    genome = f'data.genomes=[{{path="{GENOME}"}}]'
    config = settings("run.steps=2", "schedule.warmup_steps=1", genome, "data.held_out_tail=0.0")
    assert pretrain(config, tmp_path / "run").report is None


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "dnagpt_fast.pretrain", "--set", "run.steps=1"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "wanted the folder of the run" in " ".join(ended.stderr.split())
