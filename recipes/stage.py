"""Shared steps of the recipes: pre-train once, fine-tune from two starts on the same rows, write one
table."""

import argparse
import hashlib
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dnagpt_fast.finetune.run import finetune
from dnagpt_fast.finetune.settings import load_finetune_config
from dnagpt_fast.input_files import sha256_of
from dnagpt_fast.pretrain.run import pretrain
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.training import checkpoint

HERE = Path(__file__).parent


def folders(what: str) -> tuple[Path, Path]:
    """The folders --data (downloaded packages) and --out (runs and results)."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--data", type=Path, default=Path("recipe_data"), help="packages are fetched to here")
    parser.add_argument("--out", type=Path, default=Path("recipe_runs"), help="runs and results go here")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    return chosen.data, chosen.out


def cpu_seconds() -> float:
    """User and system time of this process and of the processes it waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


class Clock:
    """Wall time and CPU time of each part of a recipe, from the start of the process."""

    def __init__(self) -> None:
        self.began = self.last = time.monotonic()
        self.last_cpu = 0.0
        self.parts: dict[str, tuple[float, float]] = {}

    def lap(self, name: str) -> None:
        now, cpu = time.monotonic(), cpu_seconds()
        self.parts[name] = now - self.last, cpu - self.last_cpu
        self.last, self.last_cpu = now, cpu

    def report(self) -> str:
        """A table of the parts. Work done before an interruption is missing: time a whole recipe with an
        empty --out."""
        lines = [f"| {name} | {wall:.0f} | {cpu:.0f} |" for name, (wall, cpu) in self.parts.items()]
        lines.append(f"| all | {self.last - self.began:.0f} | {self.last_cpu:.0f} |")
        head = f"Time with {torch.get_num_threads()} thread(s); CPU seconds are user + system, of all cores together."
        return "\n".join([head, "", "| part | s | CPU s |", "|---|---|---|", *lines])


def named_by_contents(folder: Path, *of: str) -> Path:
    """FOLDER_<hash>: a run with other settings, data or held-out ranges gets another folder."""
    digest = hashlib.sha256(json.dumps(of).encode()).hexdigest()
    return folder.with_name(f"{folder.name}_{digest[:10]}")


def pretrained(name: str, genome: Path, held_out: Sequence[str], out: Path) -> Path:
    """The run folder of a model pre-trained on a genome with the settings of NAME.toml; trained if it is
    missing. No run that saw one of the held-out ranges is taken for it: they are part of the folder's name."""
    ranges = ", ".join(f'"{text}"' for text in held_out)
    species = "arabidopsis" if name.startswith("arabidopsis") else "human"
    genomes = f'data.genomes=[{{path="{genome.resolve()}", species="{species}", held_out=[{ranges}]}}]'
    settings = HERE / f"{name}.toml"
    config = load_config(settings, [genomes])
    contents = settings.read_text(), species, *sorted(held_out), sha256_of(genome)
    run = named_by_contents(out / f"pretrained_{name}", *contents)
    if checkpoint.newest(run) is None or not (run / "validation.json").exists():
        pretrain(config, run, resume=(run / "config.json").exists())
    return run


def tuned(settings: str, data: Path, run: Path, start: Path | None, *more: str) -> dict[str, Any]:
    """Test scores of a fine-tuning run with the settings of SETTINGS.toml; of several runs the means, with
    `sd`. Settings, rows and start are part of the folder's name."""
    overrides = [f'data.path="{data.resolve()}"', *more]
    if start is not None:
        overrides.append(f'start.path="{start.resolve()}"')
    file = HERE / f"{settings}.toml"
    config = load_finetune_config(file, overrides)
    begins = "random" if start is None else start.name
    run = named_by_contents(run, file.read_text(), *more, sha256_of(data), begins)
    result = run / ("summary.json" if config.run.runs > 1 else "results.json")
    if not result.exists():  # a recipe that was stopped continues its runs
        outcomes = finetune(config, run, resume=run.exists())
        if outcomes[-1].stopped_by is not None:
            raise SystemExit(f"stopped by {outcomes[-1].stopped_by}: the same command continues the run")
    found = json.loads(result.read_text())
    return found if config.run.runs > 1 else found["test"]


def value(scores: dict[str, Any], name: str) -> str:
    """A score as text for a table: with its interval, or with the standard deviation over runs."""
    found = scores[name]
    if isinstance(found, dict):
        return f"{found['mean']:.3f} ± {found['sd']:.3f}"
    if isinstance(found, (list, tuple)):
        return f"{found[0]:.3f} ({found[1]:.3f}–{found[2]:.3f})"
    return f"{found:.3f}"


def table(rows: dict[str, dict[str, Any]], names: Sequence[str]) -> str:
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {row} | " + " | ".join(value(scores, n) for n in names) + " |" for row, scores in rows.items()
    ]
    return "\n".join(lines)


def finish(out: Path, name: str, text: str, clock: Clock) -> None:
    text = f"{text}\n\n{clock.report()}\n"
    (out / f"{name}.md").write_text(text)
    print(text)
