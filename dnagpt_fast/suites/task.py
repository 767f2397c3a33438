"""What a suite is made of: `Task`, the rows and measures of one benchmark, and `Source`, the files it is read from.

A suite is a module with NAME, ABOUT, LAYOUT (of its files) and `tasks(source)`. A task says how predictions are scored
and which methods there are; the runner (job.py) calls them, scores them and writes the report.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dnagpt_fast.finetune.data.examples import Examples, LabelError, Loci
from dnagpt_fast.genome import Genome
from dnagpt_fast.input_files import inner_suffix, sha256_of
from dnagpt_fast.suites.subjects import Subject

FROZEN, TUNED, LIKELIHOOD = "frozen", "tuned", "likelihood"
WAYS = (FROZEN, TUNED, LIKELIHOOD)
"""The ways to use a model: its vectors with a linear read-out, fine-tuned, or its likelihoods as they are."""


@dataclass(frozen=True)
class Prediction:
    """What a method predicts for the test rows.

    values  one array, its first axis the rows; several seeds give several arrays, whose scores are averaged
    chosen  what was chosen on the dev rows: layer, penalty, learning rate ...
    """

    values: list[np.ndarray]
    chosen: dict[str, Any] = field(default_factory=dict)


Scorer = Callable[[np.ndarray], dict[str, float]]
"""Row numbers with repeats -> the scores of these rows."""


@dataclass(frozen=True)
class Task:
    """One benchmark.

    measure       the score that tables show
    rising        whether a higher value is better
    rows          number of test rows
    scorer        predictions (rows, ...) -> the scores of drawn rows
    clusters      int (rows,): the bootstrap draws whole clusters; None: rows
    strata        int (rows,): without clusters, rows are drawn within each value
    baselines     name -> method that needs no model
    ways          way -> method that takes a model
    facts         counts and lengths; findings: what a reader should know, such as leaks
    texts         some sequences of every part, with their places: models are asked before any work whether they can
                  read them
    examples      labelled rows of each part, which fine-tuning takes
    loci          of the test rows, if the data have positions
    """

    name: str
    measure: str
    rising: bool
    rows: int
    scorer: Callable[[np.ndarray], Scorer]
    baselines: Mapping[str, Callable[[], Prediction]]
    ways: Mapping[str, Callable[[Subject], Prediction]]
    clusters: np.ndarray | None = None
    strata: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    texts: Sequence[tuple[str, str]] = ()
    examples: Mapping[str, Examples] = field(default_factory=dict)
    loci: Loci | None = None


@dataclass
class Source:
    """The files and settings that a suite reads.

    data       folder or file of --data; genome, annotation: of the options
    only       names of tasks; empty: all
    max_rows   most rows of each part of a task, drawn with `seed`; 0: all
    window_bp  bases of a window, where a suite cuts sequence into windows; 0: the suite's own number
    on_long    what fine-tuning does with sequences that the model cannot take, as data.on_long
    hashes     SHA-256 of every file that was read
    """

    data: Path
    genome: Path | None = None
    annotation: Path | None = None
    only: tuple[str, ...] = ()
    max_rows: int = 0
    seed: int = 0
    window_bp: int = 0
    hashes: dict[str, str] = field(default_factory=dict)
    _opened: Genome | None = None

    def read(self, path: Path) -> Path:
        """The path, after its hash is noted."""
        if str(path) not in self.hashes:
            self.hashes[str(path)] = sha256_of(path)
        return path

    def tables(self, *suffixes: str) -> list[Path]:
        """The files of `data` with these suffixes, or `data` itself. Raises LabelError for none."""
        if not self.data.exists():
            raise FileNotFoundError(f"no file or folder {self.data}")
        if self.data.is_file():
            return [self.data]
        found = sorted(p for p in self.data.iterdir() if p.is_file() and inner_suffix(p) in suffixes)
        if not found:
            raise LabelError(f"{self.data}: no file with the ending {' or '.join(suffixes)} in it")
        return found

    def wants(self, name: str) -> bool:
        return not self.only or name in self.only

    def opened_genome(self, what: str) -> Genome:
        """The genome of --genome, opened once. Raises LabelError without the option."""
        if self.genome is None:
            raise LabelError(f"{self.data}: {what} needs its genome: give --genome")
        if self._opened is None:
            self._opened = Genome.open(self.genome)
            self.hashes[str(self.genome)] = sha256_of(self.genome)
        return self._opened

    def some(self, rows: int, part: str) -> np.ndarray:
        """At most `max_rows` of the numbers 0 .. rows - 1, ascending; the same for the same seed and part (of whose
        name the first six letters count)."""
        if not self.max_rows or rows <= self.max_rows:
            return np.arange(rows)
        digits = int.from_bytes(part.encode()[:6].ljust(6), "big")
        rng = np.random.Generator(np.random.Philox(key=np.array([self.seed, digits], np.uint64)))
        return np.sort(rng.choice(rows, self.max_rows, replace=False))


class Suite(Protocol):
    """A module of this folder that is a suite."""

    NAME: str
    ABOUT: str
    LAYOUT: str

    def tasks(self, source: Source) -> Iterator[Task]: ...


def stem(path: Path) -> str:
    """The name of a file without its endings: `a` for `a.tsv.gz`."""
    return path.name.split(".")[0]
