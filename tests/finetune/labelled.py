"""Small labelled sets for the tests of fine-tuning, and a model that learns them in a second."""

from pathlib import Path

import numpy as np
from rich.console import Console

from dnagpt_fast.finetune.run import finetune
from dnagpt_fast.finetune.settings import load_finetune_config
from tests.finetune.data.genomes import put, random_bases

SMALL = (
    "model.max_len=32", "model.num_layers=2", "model.num_heads=2", "model.embedding_dim=16", "model.bias=true",
    "vocabulary.k=2", "optimizer.lr=1e-2", "run.warmup_epochs=0.5", "run.batch_size=8", "run.device=cpu",
)  # fmt: skip


def split_of(i: int, n: int) -> str:
    return "train" if i < 0.6 * n else "validation" if i < 0.8 * n else "test"


def write_motif_table(folder: Path, n: int = 80) -> Path:
    """`yes` rows have GTAAGT at base 12; lengths 24 to 30."""
    rows = ["sequence,label,split"]
    for i in range(n):
        text = random_bases(24 + i % 7, seed=i)
        text = put(text, 12, "GTAAGT") if i % 2 else text
        rows.append(f"{text},{'yes' if i % 2 else 'no'},{split_of(i, n)}")
    path = folder / "motif.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def write_number_table(folder: Path, n: int = 80) -> Path:
    """The label is 3 x + y + 10 and does not depend on the sequence."""
    rng = np.random.default_rng(0)
    rows = ["sequence,label,x,y,split"]
    for i in range(n):
        x, y = rng.normal(5, 2), rng.normal(-1, 3)
        rows.append(f"{random_bases(12 + i % 9, seed=i)},{3 * x + y + 10},{x},{y},{split_of(i, n)}")
    path = folder / "numbers.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def config_for(path: Path, *more: str):
    return load_finetune_config(None, [*SMALL, f'data.path="{path}"', *more])


def quick_finetune(config, out: Path, **more):
    """`finetune` in silence."""
    return finetune(config, out, console=Console(quiet=True), **more)
