"""Recipes that share a folder: none takes a model that was pre-trained on its own test ranges."""

import sys
from pathlib import Path

import pytest
import torch

from dnagpt_fast.pretrain.batches import BatchMaker

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """
[model]
max_len = 24
num_layers = 1
num_heads = 1
embedding_dim = 8
[vocabulary]
k = 1
[schedule]
warmup_steps = 1
[run]
steps = 2
batch_size = 4
device = "cpu"
"""


@pytest.fixture
def stage(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    monkeypatch.delitem(sys.modules, "stage", raising=False)
    import stage

    (tmp_path / "human_tiny.toml").write_text(SETTINGS)
    monkeypatch.setattr(stage, "HERE", tmp_path)
    return stage


@pytest.fixture
def genome(tmp_path) -> Path:
    codes = torch.randint(4, (2000,), generator=torch.Generator().manual_seed(0)).tolist()
    path = tmp_path / "genome.fa"
    path.write_text(">one\n" + "".join("ACGT"[code] for code in codes) + "\n")
    return path


@pytest.fixture
def trained_windows(monkeypatch) -> list[int]:
    """First bases of all windows that pre-training has drawn."""
    found: list[int] = []
    sampled = BatchMaker.sampled

    def record(self, *arguments, **named):
        batch = sampled(self, *arguments, **named)
        found.extend(batch.windows.start_bp.tolist())
        return batch

    monkeypatch.setattr(BatchMaker, "sampled", record)
    return found


def test_no_recipe_trains_on_the_test_ranges_of_another(stage, genome, tmp_path, trained_windows):
    out = tmp_path / "runs"
    first = stage.pretrained("human_tiny", genome, ["one:0-900"], out)
    assert trained_windows
    assert min(trained_windows) >= 900
    trained_windows.clear()
    second = stage.pretrained("human_tiny", genome, ["one:1000-2000"], out)
    assert second != first
    assert trained_windows, "the run of the first recipe was taken, which was trained on these ranges"
    assert max(trained_windows) < 1000
    trained_windows.clear()
    assert stage.pretrained("human_tiny", genome, ["one:0-900"], out) == first
    assert not trained_windows


def test_other_settings_and_another_genome_are_another_run(stage, genome, tmp_path):
    out, ranges = tmp_path / "runs", ["one:0-900"]
    found = {stage.pretrained("human_tiny", genome, ranges, out)}
    (tmp_path / "human_tiny.toml").write_text(SETTINGS.replace("steps = 2", "steps = 3"))
    found.add(stage.pretrained("human_tiny", genome, ranges, out))
    genome.write_text(genome.read_text().replace("ACG", "AGG"))
    found.add(stage.pretrained("human_tiny", genome, ranges, out))
    assert len(found) == 3
