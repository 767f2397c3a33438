"""Suite genomic-benchmarks: Genomic Benchmarks (Gresova et al. 2023) as intervals of a genome, by accuracy."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dnagpt_fast.finetune.data.examples import Examples, LabelError
from dnagpt_fast.finetune.data.sequence_files import read_bed
from dnagpt_fast.suites.labelled import labelled_task, parts_of_column, with_dev
from dnagpt_fast.suites.task import Source, Task, stem

NAME = "genomic-benchmarks"
ABOUT = "enhancers, promoters, open chromatin: accuracy"
LAYOUT = (
    "DIR/TASK.bed or .tsv: BED columns, a column `label` (or BED's name) and a column `split` with train and test (and "
    "dev); --genome has the sequence"
)
BLOCK_BP = 1_000_000


def tasks(source: Source) -> Iterator[Task]:
    genome = source.opened_genome("a file of intervals")
    for path in source.tables(".bed", ".tsv", ".txt"):
        if not source.wants(stem(path)):
            continue
        rows = read_bed(source.read(path), genome)
        sets = with_dev(parts_of_column(rows), source, BLOCK_BP)
        yield labelled_task(stem(path), sets, "accuracy", source, _blocks(sets["test"], path))


def _blocks(rows: Examples, path: Path) -> np.ndarray:
    """The block of each test row: neighbours share sequence, so the bootstrap draws whole blocks."""
    if rows.loci is None:
        raise LabelError(f"{path}: no positions")
    keys = [
        f"{contig}:{start // BLOCK_BP}"
        for contig, start in zip(rows.loci.contig, rows.loci.start_bp.tolist(), strict=True)
    ]
    return np.unique(keys, return_inverse=True)[1]
