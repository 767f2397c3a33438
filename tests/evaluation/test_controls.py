"""Scores beside dinucleotide shuffles: the shuffles' counts, their seeds, and z from scores taken one by one."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from dnagpt_fast import Genome, KmerTokenizer, score
from dnagpt_fast.evaluation import controls as module
from dnagpt_fast.evaluation.controls import score_with_controls
from tests.tiny import load_tiny

TEXTS = ["ACGTTGCATGTTAACCGGATTACAGG", "GGCANNTACGATTGCA", "AAAAAAAAA"]


@pytest.fixture(scope="module")
def model():
    return load_tiny("tiny_bias").model()


def shuffles(texts, count=4, seed=0):
    listed = list(module._with_shuffles(KmerTokenizer(3), texts, count, seed))
    return [listed[i + 1 : i + 1 + count] for i in range(0, len(listed), count + 1)]


def test_shuffles_have_the_dinucleotides_of_their_sequence():
    for text, made in zip(TEXTS, shuffles(TEXTS), strict=True):
        assert all(Counter(pairwise(one)) == Counter(pairwise(text)) for one in made)
    assert len(set(shuffles(TEXTS)[0])) == 4


def test_the_same_seed_gives_the_same_shuffles_wherever_a_sequence_is():
    forward, backward = shuffles(TEXTS), shuffles(TEXTS[::-1])
    assert forward == backward[::-1]
    assert shuffles([TEXTS[0].lower()]) == forward[:1]
    assert shuffles(TEXTS, seed=1)[0] != forward[0]


@pytest.mark.parametrize("both_strands", [False, True])
def test_mean_and_z_are_those_of_scores_taken_one_by_one(model, both_strands):
    tokenizer, settings = KmerTokenizer(3), {"both_strands": both_strands, "prefix": "<M>"}
    found = list(score_with_controls(model, tokenizer, TEXTS, controls=4, **settings))
    for text, made, one in zip(TEXTS, shuffles(TEXTS), found, strict=True):
        (own,) = score(model, tokenizer, [text], **settings)
        values = [next(score(model, tokenizer, [other], **settings)).per_bp for other in made]
        assert one.score == own
        assert one.mean == pytest.approx(np.mean(values))
        assert one.sd == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        if one.sd:
            assert one.z == pytest.approx((own.per_bp - np.mean(values)) / np.std(values, ddof=1))
    assert np.isnan(found[-1].z), "a repeat of one base has one shuffle only"


def test_a_range_of_a_genome_is_scored_as_its_text(model, tmp_path):
    path = tmp_path / "x.fa"
    path.write_text(f">one\n{TEXTS[0]}\n")
    tokenizer = KmerTokenizer(3)
    with Genome.open(path) as genome:
        (packed,) = score_with_controls(model, tokenizer, [genome["one"]], controls=3)
    assert [packed] == list(score_with_controls(model, tokenizer, TEXTS[:1], controls=3))


def test_what_cannot_be_used_is_named(model, monkeypatch):
    with pytest.raises(ValueError, match="controls = 1: wanted 2 or more"):
        score_with_controls(model, KmerTokenizer(3), TEXTS, controls=1)
    for texts, message in (
        (["ACGT", ""], r"sequences\[1\]: a sequence is empty"),
        (["ACG", 3], r"sequences\[1\]: int"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            list(score_with_controls(model, KmerTokenizer(3), texts))
    monkeypatch.setattr(module, "MOST_BP", 20)
    with pytest.raises(ValueError, match=r"sequences\[1\]: 26 bp: sequences of up to 20"):
        list(score_with_controls(model, KmerTokenizer(3), ["ACGT", TEXTS[0]]))
