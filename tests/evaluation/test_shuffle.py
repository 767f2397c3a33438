"""Shuffled sequences keep every dinucleotide, and all such sequences are equally likely."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from dnagpt_fast.evaluation.shuffle import dinucleotide_shuffle


@pytest.mark.parametrize("length", [1, 3, 4, 50, 600])
def test_the_dinucleotides_are_kept(length):
    rng = np.random.default_rng(length)
    text = "".join(rng.choice(list("ACGT"), length))
    made = dinucleotide_shuffle(text, rng)
    assert Counter(pairwise(made)) == Counter(pairwise(text))
    assert (made[0], made[-1], len(made)) == (text[0], text[-1], length)
    assert length < 50 or made != text


def test_all_texts_are_equally_likely():
    rng = np.random.default_rng(0)
    found = Counter(dinucleotide_shuffle("ACAGATA", rng) for _ in range(3000))
    assert len(found) == 6  # the orders of C, G and T between the As
    assert min(found.values()) > 400
