"""The learning-curve recipe on synthetic rows: resumed after a kill, without test rows in training, and its page."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dnagpt_fast.evaluation.row_counts import ClassificationRows, RegressionRows
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.weights.forms import save_model

ROOT = Path(__file__).resolve().parents[2]
SHAPE = {
    "name": "dna_gpt0.1b_m",
    "max_len": 24,
    "num_layers": 1,
    "num_heads": 1,
    "embedding_dim": 8,
    "bias": True,
}
ROUND = {"seeds": [0], "sizes": [12, 0], "starts": ["composed", "pre-trained"], "plain": True}


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    for name in ("stage", "curve_tasks", "curve_journal", "curve_page", "learning_curves"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import learning_curves

    return learning_curves


def texts(count: int, seed: int, motif: str = "") -> list[str]:
    codes = np.random.default_rng(seed).integers(0, 4, (count, 20))
    found = ["".join("ACGT"[c] for c in row) for row in codes]
    return [text[:8] + motif + text[8 + len(motif) :] for text in found]


@pytest.fixture
def labelled(tmp_path) -> Path:
    """GUE's form: rows of the second class have a motif."""
    for number, (part, count) in enumerate({"train": 20, "dev": 8, "test": 10}.items()):
        folder = tmp_path / "labelled" / "gue" / "toy"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [f"{text},0" for text in texts(count, number)] + [
            f"{text},1" for text in texts(count, 10 + number, "TATAAA")
        ]
        (folder / f"{part}.csv").write_text("\n".join(["sequence,label", *rows]) + "\n")
    return tmp_path / "labelled"


@pytest.fixture
def settings(tmp_path) -> dict:
    torch.manual_seed(0)
    tokenizer = KmerTokenizer(2)
    shape = {name: value for name, value in SHAPE.items() if name != "name"}
    save_model(DNAGPT(len(tokenizer), **shape), tokenizer, tmp_path / "start", "folder")
    return {
        "model": str(tmp_path / "start"),
        "k": 2,
        "starts": ["composed", "pre-trained"],
        "kmers": [1, 2],
        "lrs": [1e-2],
        "chosen_at": 12,
        "first_seed": 0,
        "rounds": [ROUND],
        "limits": {"most_train_rows": 30, "validation_rows": 12, "most_test_rows": 16},
        "epochs": {"12": 1, "0": 1},
        "run": {"batch_size": 16, "patience": 1, "evaluation_batch_size": 32},
        "shape": SHAPE,
        "tasks": {"toy": {"source": "gue", "species": "mouse", "measure": "mcc"}},
    }


def run_all(recipe, settings, labelled, out) -> None:
    curves = recipe.Curves(settings, out / "packages", labelled, out)
    try:
        for step in curves.steps(["toy"]):
            step()
    finally:
        curves.close()


@pytest.mark.slow
def test_a_killed_recipe_goes_on_and_no_test_row_is_trained_on(
    recipe, settings, labelled, tmp_path, monkeypatch
):
    out, trained, real = tmp_path / "out", [], recipe.finetune

    def finetune(config, *arguments, **named):
        with open(config.data.path, newline="") as file:
            trained.append([(row["sequence"], row["split"]) for row in csv.DictReader(file, delimiter="\t")])
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(config, *arguments, **named)

    monkeypatch.setattr(recipe, "finetune", finetune)
    with pytest.raises(KeyboardInterrupt):
        run_all(recipe, settings, labelled, out)
    (journal,) = (out / "runs").glob("*.jsonl")
    lines = journal.read_bytes()
    assert lines.count(b"\n") == 1
    journal.write_bytes(lines + lines[: len(lines) // 2])  # killed in the middle of a line
    run_all(recipe, settings, labelled, out)
    # 2 starts at 12 labels, then with all labels; the second run was killed
    assert len(trained) == 5
    runs = sys.modules["curve_journal"].finished_runs(settings, "toy", out)
    assert len(runs) == 4 + 2 * 4
    assert len({(run.method, run.size, run.seed, run.lr) for run in runs}) == len(runs)
    run_all(recipe, settings, labelled, out)
    assert len(trained) == 5, "finished runs were done again"

    task = recipe.curve_task(settings, "toy", out, labelled, out)
    held = set(task.sets["test"].sequence)
    assert len(held) == 16
    for rows in trained:
        assert not held & {text for text, _ in rows}
        assert {split for _, split in rows} == {"train", "validation"}
        assert sum(split == "train" for _, split in rows) in (12, 30)
        assert not {t for t, s in rows if s == "train"} & {t for t, s in rows if s == "validation"}
    _page(recipe, settings, out, tmp_path)


def _page(recipe, settings, out, tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured -->\nold\n<!-- end of measured -->\nafter\n")
    recipe.write_page(settings, out, page)
    text = page.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "old" not in text
    for said in (
        "| pre-trained |",
        "| k-mer counts |",
        "| frozen pre-trained |",
        "all labels",
        "toy: MCC, 16 test rows",
    ):
        assert said in text
    assert (tmp_path / "learning_curves.png").stat().st_size > 5000


def test_a_table_for_training_has_no_test_row_and_a_cut_line_of_the_journal_is_done_again(
    recipe, settings, labelled, tmp_path
):
    task = recipe.curve_task(settings, "toy", tmp_path, labelled, tmp_path)
    config = recipe.tuned_settings(settings, task, "pre-trained", 12, 3, 1e-3, tmp_path)
    assert config.start.path == settings["model"]
    with open(config.data.path, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["split"] for row in rows].count("train") == 12
    assert not set(task.sets["test"].sequence) & {row["sequence"] for row in rows}
    assert task.some(12, 3).tolist() != task.some(12, 4).tolist()
    assert task.some(30, 3)[:12].tolist() == task.some(12, 3).tolist()

    runs = [recipe.Run("toy", "composed", 12, seed, 0.5, {}, {"test": [0.5]}, 1.0, 1e-3) for seed in (0, 1)]
    journal = recipe.Journal(settings, "toy", tmp_path)
    for run in runs:
        journal.append(run)
    with pytest.raises(ValueError, match="another process is working on this job"):
        recipe.Journal(settings, "toy", tmp_path)
    journal.close()
    (path,) = (tmp_path / "runs").glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    assert sys.modules["curve_journal"].finished_runs(settings, "toy", tmp_path) == runs[:1]
    journal = recipe.Journal(settings, "toy", tmp_path)
    journal.append(runs[1])
    journal.close()
    assert sys.modules["curve_journal"].finished_runs(settings, "toy", tmp_path) == runs
    assert not sys.modules["curve_journal"].finished_runs({**settings, "k": 3}, "toy", tmp_path)


def test_rows_like_those_of_another_set_and_their_reverse_complement_are_left_out(recipe):
    tasks = sys.modules["curve_tasks"]
    rows = texts(12, 5)
    near = [tasks.reverse_complement(rows[0]), rows[1][:19] + "N"]
    sets = {"train": near + rows[4:], "validation": [rows[2], rows[3]], "test": [rows[0], rows[1], rows[2]]}
    limits = {"most_train_rows": 50, "validation_rows": 50, "most_test_rows": 50}
    found, facts = tasks.without_copies({part: examples(some) for part, some in sets.items()}, limits)
    assert found["train"].sequence == rows[4:]
    assert found["validation"].sequence == [rows[3]]
    assert facts["copies_left_out"] == {"validation": 1, "train": 2}


def examples(some: list[str]):
    from dnagpt_fast.finetune.data.examples import Examples

    return Examples(
        Path("x.csv"),
        [f"x.csv:{i}" for i in range(len(some))],
        some,
        ["0"] * len(some),
        np.zeros((len(some), 0)),
    )


def test_rows_of_unknown_place_are_found_in_the_part_of_a_genome_that_was_trained_on(recipe, tmp_path):
    tasks = sys.modules["curve_tasks"]
    sequence = "".join(texts(100, 7))
    path = tmp_path / "g.fa"
    path.write_text(f">20\n{sequence}\n")
    asked = [
        sequence[100:140],
        tasks.reverse_complement(sequence[1001:1041]),
        sequence[1500:1540],  # in the held-out range
        sequence[990:1030][:-1] + "N",
        *texts(3, 8),
    ]
    assert tasks.found_in(asked, path, ["20:1400-2000"]).tolist() == [True, True, *[False] * 5]


def test_scores_of_all_resamples_at_once_are_those_of_the_library(recipe):
    page = sys.modules["curve_page"]
    rng = np.random.default_rng(0)
    truth, values = rng.integers(0, 2, 40), rng.random(40)
    draws = [rng.integers(0, 40, 40) for _ in range(5)]
    counts = np.array([np.bincount(rows, minlength=40) for rows in draws])
    wanted = ClassificationRows(truth, np.stack([1 - values, values], 1), 1)
    for measure in ("mcc", "accuracy"):
        found = page.scores_of(measure, truth, values, counts)
        assert np.allclose(found, [wanted(rows)[measure] for rows in draws])
    real = rng.normal(size=40)
    wanted = RegressionRows(real, values)
    found = page.scores_of("squared_pearson", real, values, counts)
    assert np.allclose(found, [wanted(rows)["squared_pearson"] for rows in draws])


def test_methods_are_listed_in_one_order_whatever_ran_first(recipe):
    page = sys.modules["curve_page"]
    found = page.ordered(
        ["k-mer counts", "frozen composed", "official", "pre-trained", "base at each place", "official"]
    )
    assert found == ["pre-trained", "official", "frozen composed", "base at each place", "k-mer counts"]


def test_the_rate_with_the_lowest_validation_loss_is_taken_once_all_were_tried(recipe):
    settings = {"lrs": [1e-2, 1e-3], "chosen_at": 300, "first_seed": 0}
    runs = [
        recipe.Run("toy", "composed", size, seed, loss, {}, {}, 1.0, lr)
        for size, seed, loss, lr in (
            (300, 0, 0.7, 1e-2),
            (300, 0, 0.6, 1e-3),
            (300, 1, 0.1, 1e-2),
            (100, 0, 0.2, 1e-2),
        )
    ]
    assert recipe.chosen_rate(settings, runs, "composed") == 1e-3
    assert recipe.chosen_rate(settings, runs[:1], "composed") is None
    assert recipe.chosen_rate(settings, runs, "official") is None


def test_the_settings_file_has_what_the_recipe_asks_for(recipe):
    import tomllib

    settings = tomllib.loads((ROOT / "recipes" / "learning_curves.toml").read_text())
    assert str(settings["chosen_at"]) in settings["epochs"]
    for one in settings["rounds"]:
        assert {str(size) for size in one["sizes"]} <= set(settings["epochs"])
        assert set(one["starts"]) <= set(settings["starts"])
    for about in settings["tasks"].values():
        assert about["source"] in sys.modules["curve_tasks"].SOURCES
        assert about["measure"] in sys.modules["curve_page"].MEASURES
