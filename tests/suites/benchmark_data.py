"""Small benchmark data whose answers are known, and a small random model, for the tests of the suites."""

import csv
from pathlib import Path

import numpy as np

from dnagpt_fast.model.initial_values import random_model
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.training.settings import ModelSettings
from dnagpt_fast.vocab import Vocabulary
from dnagpt_fast.weights.forms import save_model

MOTIF = "TATAAAAG"
ROWS = {"train": 60, "dev": 24, "test": 24}


def bases(rng: np.random.Generator, count: int, weights=(0.25, 0.25, 0.25, 0.25)) -> str:
    return "".join(rng.choice(list("ACGT"), count, p=weights))


def labelled(rng: np.random.Generator, count: int, bp: int = 40) -> list[tuple[str, str]]:
    """Half of the rows have MOTIF in the middle, label 1; the others are random, label 0."""
    rows = []
    for i in range(count):
        text = bases(rng, bp)
        if i % 2:
            middle = bp // 2 - 4
            text = text[:middle] + MOTIF + text[middle + 8 :]
        rows.append((text, str(i % 2)))
    return rows


def write_csv(path: Path, rows, header=("sequence", "label")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([header, *rows])
    return path


def gue_folder(folder: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for part, count in ROWS.items():
        write_csv(folder / "motif" / f"{part}.csv", labelled(rng, count))
    return folder


def small_model(folder: Path) -> Path:
    """A random DNAGPT of 3-mers, 64 tokens long, as a folder."""
    vocabulary = Vocabulary(3, True)
    shape = ModelSettings(max_len=64, num_layers=1, num_heads=2, embedding_dim=16, bias=True)
    save_model(random_model(shape, vocabulary, 1), KmerTokenizer.of(vocabulary), folder / "model", "folder")
    return folder / "model"
