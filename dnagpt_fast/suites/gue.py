"""Suite gue: Genome Understanding Evaluation (Zhou et al. 2023, DNABERT-2), by Matthews' correlation as published."""

from collections.abc import Iterator
from pathlib import Path

from dnagpt_fast.finetune.data.examples import Examples, LabelError
from dnagpt_fast.finetune.data.tables import read_table
from dnagpt_fast.input_files import inner_suffix
from dnagpt_fast.suites.labelled import PARTS, labelled_task
from dnagpt_fast.suites.task import Source, Task, stem

NAME = "gue"
ABOUT = "promoters, transcription factors, splice sites: MCC"
LAYOUT = (
    "DIR/TASK/{train,dev,test}.csv, .tsv or .parquet, with columns sequence and label; or one TASK as DIR"
)
ALIASES = {"dev": ("dev", "valid", "validation", "val")}


def tasks(source: Source) -> Iterator[Task]:
    found = folders(source)
    for folder in found:
        # of folders such as tf/0 and mouse/0
        twice = sum(other.name == folder.name for other in found) > 1
        name = f"{folder.parent.name}_{folder.name}" if twice else folder.name
        if source.wants(name):
            sets = {part: _read(folder, part, source) for part in PARTS}
            yield labelled_task(name, sets, "mcc", source)


def folders(source: Source) -> list[Path]:
    """The folders of tasks. Raises LabelError for none."""
    if not source.data.is_dir():
        raise FileNotFoundError(f"no folder {source.data}")
    if any(stem(path) == "train" for path in source.data.iterdir()):
        return [source.data]
    found = sorted(
        path
        for path in source.data.rglob("*")
        if path.is_dir() and any(stem(p) in PARTS for p in path.iterdir())
    )
    if not found:
        raise LabelError(f"{source.data}: no folder with train, dev and test in it: wanted {LAYOUT}")
    return found


def _read(folder: Path, part: str, source: Source) -> Examples:
    names = ALIASES.get(part, (part,))
    there = [
        path
        for path in sorted(folder.iterdir())
        if stem(path) in names and inner_suffix(path) in (".csv", ".tsv", ".parquet")
    ]
    if len(there) != 1:
        has = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise LabelError(
            f"{folder}: {len(there)} files for the part {part}: wanted one {part}.csv (or .tsv, .parquet, .gz); "
            f"it has {has}"
        )
    return read_table(source.read(there[0]))
