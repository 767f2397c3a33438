"""Copies across a split by brute force, overlaps in the genome, and a model's recorded training ranges."""

import numpy as np
import pytest

from dnagpt_fast.finetune.data.examples import Loci
from dnagpt_fast.suites import checks
from dnagpt_fast.suites.subjects import training_record
from dnagpt_fast.vocab import reverse_complement
from tests.suites.benchmark_data import bases


def kmers(text):
    found = {text[i : i + 16] for i in range(len(text) - 15)}
    return {min(one, reverse_complement(one)) for one in found if "N" not in one}


def test_near_copies_are_those_of_a_search_of_all_pairs():
    rng = np.random.default_rng(2)
    others = [bases(rng, 80) for _ in range(6)]
    tested = [
        others[0],
        reverse_complement(others[1]),
        others[2][20:60] + bases(rng, 40),
        others[3][:24] + bases(rng, 56),
        others[4][:30] + "N" + others[4][31:60] + bases(rng, 20),
        bases(rng, 80),
        "ACGT",
    ]
    same, near = checks.copies(tested, others)
    assert same.tolist() == [True, True, False, False, False, False, False]
    wanted = []
    for i, text in enumerate(tested):
        mine = kmers(text)
        shares = [len(mine & kmers(other)) / max(len(mine), 1) for other in others]
        wanted.append(bool(same[i]) or max(shares) >= checks.NEAR_SHARE)
    assert near.tolist() == wanted
    assert near.tolist()[:4] == [True, True, True, False]


def test_texts_shorter_than_a_kmer_and_nothing_shared():
    same, near = checks.copies(["ACG", "TTT"], ["ACG"])
    assert same.tolist() == near.tolist() == [True, False]


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
