"""Learning curves: what pre-training saves in labels, on seven tasks, beside random starts and plain baselines.

    python recipes/learning_curves.py --labelled FOLDER --out curve_runs
    python recipes/learning_curves.py --out curve_runs --page docs/learning_curves.md    # tables and figure again

FOLDER has the labelled data that no package has, as docs/learning_curves.md lists them. Each finished run is a line of
its task's file in OUT/runs. A killed command loses the run that it was at; the same command goes on. With --only,
several commands can work on different tasks at the same time.
"""

import argparse
import math
import shutil
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from curve_journal import Journal, Run, chosen_rate, find
from curve_page import write_page
from curve_tasks import CurveTask, curve_task
from rich.console import Console
from stage import HERE, cpu_seconds

from dnagpt_fast import embed, load_model
from dnagpt_fast.evaluation.baselines import (
    ReadOut,
    choose_logistic,
    choose_ridge,
    gradient_boosting,
    kmer_counts,
    position_features,
)
from dnagpt_fast.finetune import FinetuneConfig, finetune, predict
from dnagpt_fast.finetune.data.settings import LabelledDataSettings
from dnagpt_fast.finetune.data.tables import write_rows
from dnagpt_fast.finetune.settings import (
    FinetuneOptimizerSettings,
    FinetuneRunSettings,
    FinetuneTaskSettings,
)
from dnagpt_fast.model.initial_values import random_model
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.output_files import whole
from dnagpt_fast.training.settings import ModelSettings, StartSettings, VocabularySettings
from dnagpt_fast.vocab import Vocabulary, species_token

PRETRAINED, COMPOSED = "pre-trained", "composed"
KMERS, POSITIONS = "k-mer counts", "base at each place"
RIDGE, TREES = "ridge, k-mers and numbers", "boosted trees, k-mers and numbers"
FROZEN = "frozen"

Features = dict[Any, Callable[[str, np.ndarray], np.ndarray]]
"""Name -> (set, rows) -> (rows, F)."""


class Curves:
    """All runs of the recipe, in an order that gives a usable table early. Tables of runs and their checkpoints are in
    `scratch` while a run goes on."""

    def __init__(
        self, settings: dict[str, Any], data: Path, labelled: Path, out: Path, scratch: Path | None = None
    ) -> None:
        self.settings, self.scratch, self.out = settings, scratch, out
        self._sources = data, labelled
        self._tasks: dict[str, CurveTask] = {}
        self._journals: dict[str, Journal] = {}

    def task(self, name: str) -> CurveTask:
        if name not in self._tasks:
            self._tasks[name] = curve_task(self.settings, name, *self._sources, self.out)
        return self._tasks[name]

    def journal(self, name: str) -> Journal:
        if name not in self._journals:
            self._journals[name] = Journal(self.settings, name, self.out)
        return self._journals[name]

    def close(self) -> None:
        for journal in self._journals.values():
            journal.close()

    def steps(self, only: Sequence[str]) -> Iterator[Callable[[], None]]:
        """First each start at `chosen_at` labels with each rate, then the rounds. only: the tasks that are run."""
        s = self.settings
        names = [name for name in s["tasks"] if name in only]
        for name, start, lr in product(names, s["starts"], s["lrs"]):
            yield partial(self.tune, name, start, s["chosen_at"], s["first_seed"], lambda lr=lr: lr)
        for one in s["rounds"]:
            if one["plain"]:
                for name, seed, size in product(names, one["seeds"], one["sizes"]):
                    yield partial(self.plain, name, size, seed)
            for seed, name, size, start in product(one["seeds"], names, one["sizes"], one["starts"]):
                yield partial(self.tune, name, start, size, seed, partial(self.lr, name, start))

    def lr(self, name: str, start: str) -> float:
        """The rate of a start on a task, whose runs at `chosen_at` labels are finished."""
        found = chosen_rate(self.settings, self.journal(name).done, start)
        assert found is not None
        return found

    def usable(self, name: str, size: int) -> bool:
        """Whether the task has more training rows than this; `all` has the same rows otherwise."""
        return not size or size < len(self.task(name).sets["train"])

    def tune(self, name: str, start: str, size: int, seed: int, rate: Callable[[], float]) -> None:
        """rate: called when the run begins, for what was chosen until then."""
        lr = rate()
        if not self.usable(name, size) or find(self.journal(name).done, start, size, seed, lr):
            return
        task, began = self.task(name), cpu_seconds()
        folder = Path(tempfile.mkdtemp(prefix="curves_", dir=self.scratch))
        try:
            config = tuned_settings(self.settings, task, start, size, seed, lr, folder)
            (outcome,) = finetune(config, folder / "run", console=Console(quiet=True))
            if outcome.stopped_by is not None:
                raise SystemExit(f"stopped by {outcome.stopped_by}: the same command goes on with this run")
            values = {part: predicted(task, part, folder / "run") for part in task.tested}
            report = outcome.report
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        chosen = {
            "lr": lr,
            "best_step": report["best_step"],
            "steps": report["steps"],
            "epochs": report["epochs"],
        }
        self._finished(
            Run(name, start, size, seed, report["validation_loss"], chosen, values, cpu_seconds() - began, lr)
        )

    def _finished(self, run: Run) -> None:
        self.journal(run.task).append(run)
        what = f"{run.task}, {run.method}, {run.size or 'all'} labels, seed {run.seed}, {run.chosen}"
        print(f"{what}: validation loss {run.validation_loss:.4f}, {run.cpu_s:.1f} CPU s", flush=True)

    # Baselines and frozen states

    def plain(self, name: str, size: int, seed: int) -> None:
        if not self.usable(name, size):
            return
        regression = self.settings["tasks"][name]["source"] == "abundance"
        methods: list[tuple[str, Callable[[CurveTask], Features]]]
        methods = [(RIDGE, self._kmers), (TREES, self._kmers)] if regression else [(KMERS, self._kmers)]
        if not regression:
            methods.append((POSITIONS, _positions))
        for start in (COMPOSED, PRETRAINED):
            methods.append((f"{FROZEN} {start}", partial(self._layers, start=start)))
        for method, features in methods:
            if find(self.journal(name).done, method, size, seed):
                continue
            task, began = self.task(name), cpu_seconds()
            rows = task.some(size, seed)
            run = read_out(task, features(task), rows, trees=method == TREES)
            self._finished(Run(name, method, size, seed, *run, cpu_seconds() - began))

    def _kmers(self, task: CurveTask) -> Features:
        def of(k: int) -> Callable[[str, np.ndarray], np.ndarray]:
            def counts(part: str, rows: np.ndarray) -> np.ndarray:
                some = task.sets[part].take(rows)
                return np.concatenate([kmer_counts(some.sequence, k), some.numbers], 1)

            return counts

        return {k: of(k) for k in self.settings["kmers"]}

    def _layers(self, task: CurveTask, start: str) -> Features:
        """Mean-pooled states of each layer, with the task's numbers."""
        states = self._states(task, start)

        def of(layer: int) -> Callable[[str, np.ndarray], np.ndarray]:
            return lambda part, rows: np.concatenate(
                [states(part, rows)[:, layer], task.sets[part].numbers[rows]], 1
            )

        return {layer: of(layer) for layer in range(self.settings["shape"]["num_layers"] + 1)}

    def _states(self, task: CurveTask, start: str) -> Callable[[str, np.ndarray], np.ndarray]:
        """(set, rows) -> float32 (rows, layers, D); a file keeps the rows that were asked for."""
        path = task.tables["train"].with_name(f"states_{start}.npz")
        kept = dict(np.load(path)) if path.exists() else {}
        shape = self.settings["shape"]["num_layers"] + 1, self.settings["shape"]["embedding_dim"]

        def of(part: str, rows: np.ndarray) -> np.ndarray:
            known = kept.setdefault(part, np.full((len(task.sets[part]), *shape), np.nan, np.float32))
            missing = rows[np.isnan(known[rows, 0, 0])]
            if len(missing):
                if start == PRETRAINED:
                    model, tokenizer = load_model(self.settings["model"])
                else:
                    vocabulary = Vocabulary(self.settings["k"])
                    model = random_model(ModelSettings(**self.settings["shape"]), vocabulary, 0).eval()
                    tokenizer = KmerTokenizer.of(vocabulary)
                texts = task.sets[part].take(missing).sequence
                prefix = f"<{species_token(model_species(task))}>"
                layers = list(range(shape[0]))
                known[missing] = np.stack(list(embed(model, tokenizer, texts, layer=layers, prefix=prefix)))
                with whole(path) as temporary, open(temporary, "wb") as file:
                    np.savez(file, **kept)
            return known[rows]

        return of


def _positions(task: CurveTask) -> Features:
    return {"": lambda part, rows: position_features(task.sets[part].take(rows).sequence)}


def read_out(
    task: CurveTask, features: Features, rows: np.ndarray, *, trees: bool
) -> tuple[float, dict[str, Any], dict[str, list[float]]]:
    """Validation loss, choices and predictions of the best of several features, fitted on some training rows."""
    truth, checked = task.truth("train")[rows], task.truth("validation")
    every = {part: np.arange(len(task.sets[part])) for part in task.sets}
    choose = choose_ridge if task.kind == "regression" else choose_logistic
    best: tuple[Any, ReadOut] | None = None
    for name, of in features.items():
        found = choose(of("train", rows), truth, of("validation", every["validation"]), checked)
        if best is None or found.loss < best[1].loss:
            best = name, found
    assert best is not None
    name, found = best
    of = features[name]
    chosen, loss, values = {"features": name, "penalty": found.penalty}, found.loss, {}
    for part in task.tested:
        asked = of(part, every[part])
        guess = found.predict(asked)
        if trees:
            seen = of("validation", every["validation"])
            both = gradient_boosting(
                of("train", rows),
                truth,
                np.concatenate([seen, asked]),
                validation=seen,
                validation_values=checked,
            )
            loss, guess = float(np.mean((both[: len(checked)] - checked) ** 2)), both[len(checked) :]
            chosen = {"features": name}
        values[part] = _short(guess if task.kind == "regression" else guess[:, 1])
    return loss, chosen, values


def model_species(task: CurveTask) -> str:
    """The packaged model never saw mouse: mammals are read as human."""
    return "human" if task.species == "mouse" else task.species


def tuned_settings(
    settings: dict[str, Any], task: CurveTask, start: str, size: int, seed: int, lr: float, folder: Path
) -> FinetuneConfig:
    """Settings of a run on some training rows and all validation rows, which are written to a table in `folder`. No
    test row is in it."""
    parts = {"train": task.sets["train"].take(task.some(size, seed)), "validation": task.sets["validation"]}
    rows = [
        (text, label, *numbers, split)
        for split, part in parts.items()
        for text, label, numbers in zip(part.sequence, part.label or (), part.numbers.tolist(), strict=True)
    ]
    names = task.sets["train"].number_names
    table = folder / "rows.tsv"
    write_rows(table, ["sequence", "label", *names, "split"], rows)
    epochs = settings["epochs"][str(size)]
    transform = "log10" if task.kind == "regression" else "none"
    return FinetuneConfig(
        start=StartSettings(path=settings["model"] if start == PRETRAINED else ""),
        model=ModelSettings(**settings["shape"], initial=COMPOSED if start == PRETRAINED else start),
        vocabulary=VocabularySettings(settings["k"]),
        task=FinetuneTaskSettings(kind=task.kind, species=model_species(task), target_transform=transform),
        data=LabelledDataSettings(path=str(table), number_columns=names, on_n="keep"),
        optimizer=FinetuneOptimizerSettings(lr=lr),
        run=FinetuneRunSettings(
            epochs=epochs, warmup_epochs=min(1.0, epochs / 2), seed=seed, keep=1, **settings["run"]
        ),
    )


def predicted(task: CurveTask, part: str, run: Path) -> list[float]:
    names = task.sets[part].number_names
    data = LabelledDataSettings(path=str(task.tables[part]), number_columns=names, on_n="keep")
    found, _ = predict(run, data, run / f"{part}.tsv", batch_size=128)
    return _short(found.values if task.kind == "regression" else found.values[:, 1])


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labelled", type=Path, help="the labelled data; without it nothing is run")
    parser.add_argument("--data", type=Path, default=Path("recipe_data"), help="packages are fetched to here")
    parser.add_argument(
        "--out", type=Path, default=Path("curve_runs"), help="rows, journal and results go here"
    )
    parser.add_argument("--scratch", type=Path, help="folder for the run at work; else the system's")
    parser.add_argument("--settings", type=Path, default=HERE / "learning_curves.toml")
    parser.add_argument("--only", action="append", help="only this task; repeat for more")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run after so many")
    parser.add_argument("--page", type=Path, help="the page whose measured part is written again")
    chosen = parser.parse_args()
    settings = tomllib.loads(chosen.settings.read_text())
    if unknown := set(chosen.only or ()) - set(settings["tasks"]):
        raise SystemExit(f"--only {sorted(unknown)[0]}: wanted one of {', '.join(settings['tasks'])}")
    if chosen.labelled is not None:
        began = time.monotonic()
        curves = Curves(settings, chosen.data, chosen.labelled, chosen.out, chosen.scratch)
        for step in curves.steps(chosen.only or list(settings["tasks"])):
            if time.monotonic() - began > chosen.minutes * 60:
                print(f"{chosen.minutes:g} minutes are over: the same command goes on")
                break
            step()
        curves.close()
    write_page(settings, chosen.out, chosen.page)


if __name__ == "__main__":
    main()
