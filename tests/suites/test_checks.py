"""A model's recorded training ranges beside the test rows."""

import numpy as np
import pytest

from dnagpt_fast.finetune.data.examples import Loci
from dnagpt_fast.suites import checks
from dnagpt_fast.suites.subjects import training_record


@pytest.mark.parametrize(
    ("record", "loci", "said"),
    [
        ([], None, "no record"),
        ([{"held_out": ["20:100-200"]}], None, "no positions"),
        ([{"held_out": ["20:100-200"]}], (["chr20", "chr20"], [110, 150], [150, 250]), "1 of 2 test rows"),
        ([{"held_out": ["20:100-200"]}], (["chr20"], [110], [150]), "all 1 test rows are inside"),
        ([{"held_out": ["1:100-200"]}], (["chr20"], [110], [150]), "no contig"),
    ],
)
def test_rows_that_the_model_has_read(record, loci, said):
    places = None
    if loci is not None:
        names, start, end = loci
        places = Loci(names, np.array(start), np.array(end), ["+"] * len(names))
    assert said in checks.seen_in_training(places, record)


def test_the_packaged_model_has_a_record():
    assert any("20:0-4000000" in genome["held_out"] for genome in training_record("dna_gpt6m_m"))
