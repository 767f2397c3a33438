"""Shared steps of the recipes: fine-tune from two starts on the same rows, each with its own learning rate, and write
tables of scores and paired differences."""

import argparse
import hashlib
import json
import resource
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from dnagpt_fast.evaluation.scores import Score, bootstrap, difference_of, resampled
from dnagpt_fast.finetune.data.examples import Loci
from dnagpt_fast.finetune.data.splits import within
from dnagpt_fast.finetune.settings import load_finetune_config
from dnagpt_fast.input_files import sha256_of
from dnagpt_fast.json_files import read_json
from dnagpt_fast.output_files import write_json
from dnagpt_fast.suites.tuned import TunedRuns, tuned_runs
from dnagpt_fast.weights.packaged import packaged_models

HERE = Path(__file__).parent
PACKAGED = "dna_gpt6m_m"
STARTS = {"DNAGPT, random start": "", f"DNAGPT, {PACKAGED}": PACKAGED}
"""Row of a table -> start.path; random weights have the packaged model's shape and composed initial values."""
RATES = (1e-4, 3e-4, 1e-3)
"""Learning rates, of which each start has the one with the lowest validation loss."""
Scorer = Callable[[np.ndarray], dict[str, float]]


def folder_options(what: str) -> argparse.ArgumentParser:
    """A parser with the folders --data (downloaded packages) and --out (runs and results)."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("recipe_data"), help="packages are fetched to here")
    parser.add_argument("--out", type=Path, default=Path("recipe_runs"), help="runs and results go here")
    return parser


def folders(what: str) -> tuple[Path, Path]:
    """The values of the options of `folder_options`; the second folder is made."""
    chosen = folder_options(what).parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    return chosen.data, chosen.out


def cpu_seconds() -> float:
    """User and system time of this process and of the processes it waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


class Clock:
    """Wall time and CPU time of each part of a recipe, from the start of the process.

    kept: a file that adds the parts up over the runs of a recipe that was stopped and continued. The part in which it
    was stopped is missing.
    """

    def __init__(self, kept: Path | None = None) -> None:
        self._kept = kept
        self._last, self._last_cpu = time.monotonic(), 0.0
        self.parts: dict[str, list[float]] = read_json(kept) if kept is not None and kept.exists() else {}

    def lap(self, name: str) -> None:
        now, cpu = time.monotonic(), cpu_seconds()
        before = self.parts.get(name, [0.0, 0.0])
        self.parts[name] = [before[0] + now - self._last, before[1] + cpu - self._last_cpu]
        self._last, self._last_cpu = now, cpu
        if self._kept is not None:
            write_json(self._kept, self.parts)

    def report(self) -> str:
        """A table of the parts."""
        lines = [f"| {name} | {wall:.0f} | {cpu:.0f} |" for name, (wall, cpu) in self.parts.items()]
        wall, cpu = (sum(part[i] for part in self.parts.values()) for i in (0, 1))
        lines.append(f"| all | {wall:.0f} | {cpu:.0f} |")
        head = f"Time with {torch.get_num_threads()} thread(s); CPU seconds are user + system, of all cores together."
        return "\n".join([head, "", "| part | s | CPU s |", "|---|---|---|", *lines])


def held_out_of_packaged(species: str) -> tuple[str, ...]:
    """The ranges of a genome that the packaged model's training left out, from packaged_model.toml. Raises SystemExit
    where the packaged model was trained with others."""
    genomes = tomllib.loads((HERE / "packaged_model.toml").read_text())["data"]["genomes"]
    (ranges,) = (tuple(one["held_out"]) for one in genomes if one["species"] == species)
    (recorded,) = (
        tuple(one["held_out"])
        for one in packaged_models()[PACKAGED].facts["genomes"]
        if one["species"] == species
    )
    if ranges != recorded:
        raise SystemExit(
            f"packaged_model.toml holds out {ranges} of {species}, the packaged model {recorded}: the test rows "
            "may have been in its training"
        )
    return ranges


def refuse_seen(loci: Loci, species: str) -> None:
    """Raises SystemExit for validation or test rows outside the ranges that the packaged model's training left out."""
    unseen = within(loci, held_out_of_packaged(species))
    if not unseen.all():
        row = int(np.argmin(unseen))
        raise SystemExit(
            f"{(~unseen).sum()} held-out rows were in the packaged model's training; the first: "
            f"{loci.contig[row]}:{loci.start_bp[row]}-{loci.end_bp[row]}"
        )


def named_by_contents(folder: Path, *of: object) -> Path:
    """FOLDER_<hash>: a run with other settings, data or another start gets another folder."""
    digest = hashlib.sha256(json.dumps(of).encode()).hexdigest()
    return folder.with_name(f"{folder.name}_{digest[:10]}")


def tuned(
    settings: str, data: Path, run: Path, start: str, *more: str, rates: Sequence[float] = RATES
) -> TunedRuns:
    """Finished runs with the settings of SETTINGS.toml below the folder `run`: as many seeds as run.runs, with the
    rate that has the lowest validation loss from this start.

    start: a packaged model, or "" for random weights. Settings, rows and start are part of the folder's name.
    """
    file = HERE / f"{settings}.toml"
    overrides = [f'data.path="{data.resolve()}"', *more]
    if start:
        overrides.append(f"start.path={start}")
    config = load_finetune_config(file, overrides)
    begins = packaged_models()[start].facts["sha256"] if start else "random"
    folder = named_by_contents(run, file.read_text(), more, sha256_of(data), begins)
    folder.mkdir(parents=True, exist_ok=True)
    return tuned_runs(config, rates, config.run.runs, folder)


def scores(
    methods: Mapping[str, Scorer],
    rows: int,
    clusters: np.ndarray,
    resamples: int,
    strata: np.ndarray | None = None,
) -> dict[str, dict[str, Score]]:
    """Each score of each method with the interval of the bootstrap over clusters."""
    return {
        name: bootstrap(scorer, rows, resampled(rows, resamples, 0, clusters, strata))
        for name, scorer in methods.items()
    }


def differences(
    methods: Mapping[str, Scorer],
    pairs: Iterable[tuple[str, str]],
    names: Sequence[str],
    rows: int,
    clusters: np.ndarray,
    resamples: int,
    strata: np.ndarray | None = None,
) -> dict[str, dict[str, Score]]:
    """First minus second of each pair of methods in each score, in the same resamples of the clusters."""
    found: dict[str, dict[str, Score]] = {}
    for first, second in pairs:
        found[f"{first} – {second}"] = {
            name: difference_of(
                lambda drawn, name=name, scorer=methods[first]: scorer(drawn)[name],
                lambda drawn, name=name, scorer=methods[second]: scorer(drawn)[name],
                rows,
                resampled(rows, resamples, 0, clusters, strata),
            )
            for name in names
        }
    return found


def table(rows: Mapping[str, Mapping[str, object]], names: Sequence[str]) -> str:
    """A score that a method does not have is empty."""
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, found in rows.items():
        cells = (found.get(name, "") for name in names)
        lines.append(
            f"| {row} | "
            + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells)
            + " |"
        )
    return "\n".join(lines)


def chosen_rates(runs: Mapping[str, TunedRuns]) -> str:
    """One sentence for each start."""
    parts = []
    for name, found in runs.items():
        losses = ", ".join(f"{loss:.4f} at {lr:g}" for lr, loss in found.losses.items())
        parts.append(
            f"{name}: learning rate {found.lr:g} of {losses} (validation loss), {len(found.folders)} seed(s)."
        )
    return " ".join(parts)


MEASURED = "<!-- measured -->", "<!-- end of measured -->"


def write_measured(page: Path, text: str) -> None:
    """Replaces the part of a page that was measured."""
    begin, end = MEASURED
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}")


def finish(out: Path, name: str, text: str, clock: Clock) -> None:
    text = f"{text}\n\n{clock.report()}\n"
    (out / f"{name}.md").write_text(text)
    print(text)
