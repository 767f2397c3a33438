"""Several processes fine-tune as one process does with the same number of micro-batches per step."""

import json

import pytest
import torch
from safetensors.torch import load_file

from dnagpt_fast.finetune.run import finetune
from dnagpt_fast.finetune.settings import load_finetune_config
from dnagpt_fast.training.log import read_metrics
from tests.finetune.labelled import SMALL, write_motif_table
from tests.training.several_processes import do_together

MORE = ["task.positive=yes", "run.epochs=3", "run.patience=1", "run.batch_size=8"]
WAYS = {"full": [], "lora": ["tuning.method=lora", "tuning.lora_rank=2", "tuning.lora_dropout=0.1"]}


@pytest.mark.slow
def test_two_processes_tune_as_one(tmp_path):
    table = write_motif_table(tmp_path)
    config = tmp_path / "settings.toml"
    config.write_text(f'[data]\npath = "{table}"\n')
    settings = [*SMALL, *MORE]
    jobs = [
        {
            "do": "tune",
            "config": str(config),
            "run": str(tmp_path / f"two {way}"),
            "overrides": [*settings, *more],
        }
        for way, more in WAYS.items()
    ]
    do_together(2, jobs, tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for way, more in WAYS.items():
        alone, two = tmp_path / f"one {way}", tmp_path / f"two {way}"
        (outcome,) = finetune(
            load_finetune_config(config, [*settings, *more, "run.micro_batch_size=4"]), alone
        )
        assert [r["step"] for r in read_metrics(two)] == [r["step"] for r in read_metrics(alone)]
        for one, other in zip(read_metrics(alone), read_metrics(two), strict=True):
            assert one.keys() == other.keys()
            for name in one.keys() & {"loss", "grad_norm", "validation_loss"}:
                assert one[name] == pytest.approx(other[name], rel=1e-4), (way, one["step"], name)
        results = json.loads((two / "results.json").read_text())
        assert results["best_step"] == outcome.report["best_step"]
        assert results["test"]["accuracy"] == pytest.approx(outcome.report["test"]["accuracy"], abs=1e-6)
        weights = load_file(two / "model.safetensors")
        for name, tensor in load_file(alone / "model.safetensors").items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5)
    torch.set_num_threads(threads)
