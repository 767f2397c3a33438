"""Suite poly-a: polyadenylation signals in the form of DeepGSR (Kalkatawi et al. 2019), by accuracy as published."""

from collections.abc import Iterator

from dnagpt_fast.finetune.data.tables import read_table
from dnagpt_fast.suites.labelled import labelled_task, parts_of_column, random_parts
from dnagpt_fast.suites.task import Source, Task, stem

NAME = "poly-a"
ABOUT = "polyadenylation signals: accuracy"
LAYOUT = "DIR/SPECIES.tsv or .csv with columns sequence and label; without a column `split` 6 : 1.5 : 2.5 at random"
SHARES = (0.6, 0.15, 0.25)
"""Train, dev and test of DNAGPT's paper."""


def tasks(source: Source) -> Iterator[Task]:
    for path in source.tables(".tsv", ".csv", ".txt", ".parquet"):
        if source.wants(stem(path)):
            rows = read_table(source.read(path))
            sets = random_parts(rows, SHARES, source.seed) if rows.split is None else parts_of_column(rows)
            yield labelled_task(stem(path), sets, "accuracy", source)
