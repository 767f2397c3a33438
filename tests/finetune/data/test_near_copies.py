"""Near copies across a split, beside a search of all pairs."""

import numpy as np

from dnagpt_fast.finetune.data.near_copies import NEAR_SHARE, copies
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
    same, near = copies(tested, others)
    assert same.tolist() == [True, True, False, False, False, False, False]
    wanted = []
    for i, text in enumerate(tested):
        mine = kmers(text)
        shares = [len(mine & kmers(other)) / max(len(mine), 1) for other in others]
        wanted.append(bool(same[i]) or max(shares) >= NEAR_SHARE)
    assert near.tolist() == wanted
    assert near.tolist()[:4] == [True, True, True, False]


def test_texts_shorter_than_a_kmer_and_nothing_shared():
    same, near = copies(["ACG", "TTT"], ["ACG"])
    assert same.tolist() == near.tolist() == [True, False]
