"""Parts of the recipes of abundance and haplotypes: labels, split of genes, order of predictions, centred intervals."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from dnagpt_fast.evaluation.scores import Score
from dnagpt_fast.finetune.data.tables import read_table
from dnagpt_fast.finetune.settings import FinetuneConfig
from tests.imports import ROOT


@pytest.fixture
def arabidopsis(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    import arabidopsis_abundance

    return arabidopsis_abundance


def test_labels_add_up_to_a_million_in_each_sample(arabidopsis, tmp_path):
    (tmp_path / "counts.tsv").write_text("gene\ta\tb\nx\t10\t0\ny\t60\t5\nelsewhere\t900\t900\n")
    genes = {"x": SimpleNamespace(length_bp=100), "y": SimpleNamespace(length_bp=200)}
    found = arabidopsis.abundance(tmp_path / "counts.tsv", genes)
    # rates of sample a: 0.1 and 0.3; of sample b: 0 and all
    assert found == {"x": pytest.approx(125_000), "y": pytest.approx(875_000)}


def test_held_out_genes_are_in_ranges_that_the_packaged_model_did_not_see(arabidopsis, tmp_path):
    rng = np.random.default_rng(0)
    lines = ["sequence\tlabel\tcontig\tstart_bp\tend_bp\tstrand"]
    for start in range(1000, 30_000_000, 50_000):
        text = "".join(rng.choice(list("ACGT"), 40))
        lines.append(f"{text}\t1\tNC_003070.9\t{start}\t{start + 40}\t+")
    made, output = tmp_path / "made.tsv", tmp_path / "rows.tsv"
    made.write_text("\n".join(lines) + "\n")
    config = FinetuneConfig()
    split = replace(config.split, block_bp=500_000, seed=1, drop_copies=True)
    arabidopsis.with_split(made, output, replace(config, split=split))
    rows = read_table(output)
    part = np.array(rows.split)
    assert set(part) == {"train", "validation", "test"}
    assert 0.1 < (part == "test").mean() < 0.25
    arabidopsis.refuse_seen(rows.loci.take(np.nonzero(part != "train")[0]), "arabidopsis")
    with pytest.raises(SystemExit):
        arabidopsis.refuse_seen(rows.loci, "arabidopsis")


def test_predictions_are_in_the_order_of_the_table(arabidopsis, tmp_path):
    lines = ["where\tlog10_label\tlog10_predicted"]
    lines += [
        f"rows.tsv:{line}\t{label}\t{label + 1}" for line, label in ((10, 3.0), (2, 1.0), (9, 2.0), (11, 5.0))
    ]
    (tmp_path / "predictions.tsv").write_text("\n".join(lines) + "\n")
    scorer = arabidopsis.of_run(tmp_path, np.array([1.0, 2.0, 3.0, 5.0]))
    assert scorer(np.arange(4))["rmse"] == pytest.approx(1)
    with pytest.raises(SystemExit, match="other rows than the table"):
        arabidopsis.of_run(tmp_path, np.array([2.0, 1.0, 3.0, 5.0]))


def test_centred_intervals_keep_their_width(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    import artificial_haplotypes

    found = artificial_haplotypes.centred({"a": {"x": Score(0.9, 0.7, 0.8), "y": Score(0.0, -1.0, 1.0)}})
    assert found["a"]["x"] == pytest.approx((0.9, 0.85, 0.95))
    assert found["a"]["y"] == (0.0, -1.0, 1.0)
