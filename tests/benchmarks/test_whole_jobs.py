"""Whole jobs: answers that disagree stop the benchmark before any figure; each job runs at a toy size (slow)."""

import numpy as np
import pytest

from benchmarks import bench_start_up, bench_whole_jobs
from benchmarks.bench_whole_jobs import CHECK, HELP, JOBS, SIZES, WHAT

TOY = {
    "pack_bp": 950_000,
    "sequences": 5,
    "bp": 4_000,
    "peer_bp": 3_000,
    "samples": 6,
    "tokens": 8,
    "rows": 48,
}


def test_every_job_has_two_sides_a_check_and_words():
    assert JOBS.keys() == CHECK.keys() == WHAT.keys()
    assert SIZES.keys() == HELP.keys() == TOY.keys()
    for sides in JOBS.values():
        assert next(iter(sides)) == "ours"
        assert len(sides) == 2


def test_answers_that_disagree_are_refused(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    np.save(tmp_path / "ours.npy", vectors)
    np.save(tmp_path / "transformers.npy", vectors + 1e-3)
    with pytest.raises(AssertionError, match="the vectors differ"):
        CHECK["embed"](tmp_path, TOY, {})
    with pytest.raises(AssertionError):
        CHECK["score"](tmp_path, TOY, {"ours": -100.0, "transformers": -100.1})
    side = {"greedy": [1, 2], "bases": [0.4, 0.5, 0.4, 0.5, 0.4, 0.5], "samples": 6}
    CHECK["generate"](tmp_path, TOY, {"ours": side, "transformers": side})
    with pytest.raises(AssertionError, match="greedy tokens differ"):
        CHECK["generate"](tmp_path, TOY, {"ours": side, "transformers": {**side, "greedy": [1, 3]}})
    with pytest.raises(AssertionError, match="GC of the samples differs"):
        CHECK["generate"](tmp_path, TOY, {"ours": side, "transformers": {**side, "bases": [0.9] * 6}})
    with pytest.raises(AssertionError):
        CHECK["finetune"](
            tmp_path, {"rows": 4000}, {"ours": {"accuracy": 0.5}, "transformers": {"accuracy": 0.9}}
        )


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_job_at_a_toy_size(job):
    row = bench_whole_jobs.measure(job, TOY)
    (other,) = set(JOBS[job]) - {"ours"}
    assert row["seconds"].keys() == {"ours", other}
    assert row["ratio"].keys() == {other}
    assert all(value > 0 for value in (*row["seconds"].values(), *row["peak_gib"].values()))


@pytest.mark.slow
def test_start_up_runs_every_command():
    found = bench_start_up.measure(1)
    assert {*bench_start_up.LIMITS, "python", "import torch"} <= found.keys()
    assert found["python"] < found["import torch"]
