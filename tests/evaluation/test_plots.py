"""Figures are complete files under their names."""

import numpy as np

from dnagpt_fast.evaluation import plots
from dnagpt_fast.evaluation.haplotype_statistics import compare_haplotypes


def test_figures(tmp_path):
    rng = np.random.default_rng(0)
    truth = np.arange(30) % 3
    p = rng.dirichlet(np.ones(3), 30)
    real = (rng.random((20, 30)) < 0.4).astype(np.uint8)
    report = compare_haplotypes(real[:10], real[10:], real, np.arange(30) * 100)
    made = [
        plots.plot_classification(tmp_path / "three.png", truth, p, ["a", "b", "c"]),
        plots.plot_classification(tmp_path / "two.png", truth % 2, p[:, :2], ["a", "b"]),
        plots.plot_regression(tmp_path / "regression.png", rng.random(9), rng.random(9)),
        plots.plot_haplotypes(tmp_path / "haplotypes.png", {"one": report, "two": report}),
    ]
    for path in made:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 5000
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in made)


def test_the_libraries_of_the_extra_are_asked_for(monkeypatch):
    import pytest

    from dnagpt_fast.extras import need

    with pytest.raises(ImportError, match=r"no_such_library is not installed: .*dnagpt-fast\[finetune\]"):
        need("no_such_library")
