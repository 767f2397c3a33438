"""Probabilities of single bases and scores of substitutions, against passes over the k-mers before each base."""

from itertools import product

import pytest
import torch

from dnagpt_fast import KmerTokenizer
from dnagpt_fast.model.marginals import KmerTable, base_probabilities, place_marginals, substitution_scores
from tests.tiny import NAMES, load_tiny


@pytest.fixture(params=NAMES)
def tiny(request):
    return load_tiny(request.param)


@pytest.fixture
def tokenizer():
    return KmerTokenizer(3)


def test_place_marginals_are_sums_over_the_kmers(tokenizer):
    logits = torch.randn(2, 189, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = place_marginals(logits, KmerTable(tokenizer))
    kmers = ["".join(letters) for letters in product("ACGT", repeat=3)]
    p = logits[:, [tokenizer.piece_to_id(kmer) for kmer in kmers]].softmax(-1)
    for place in range(3):
        for column, base in enumerate("ACGT"):
            wanted = p[:, [i for i, kmer in enumerate(kmers) if kmer[place] == base]].sum(-1)
            torch.testing.assert_close(got[:, place, column].double(), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 7, 50])
def test_every_base_is_predicted_from_the_bases_before_it(tiny, tokenizer, length):
    """Each position by its own pass over the k-mers that end right before it."""
    model = tiny.model()
    bases = "ACGTTGCANACCGTAGGATC"[:length] + "GATTACA" * 5
    bases = bases[:length]
    got = base_probabilities(model, tokenizer, bases, overlap=5)
    table = KmerTable(tokenizer)
    torch.testing.assert_close(got.sum(1), torch.ones(length))
    for position in range(length):
        context = bases[position % 3 : position]
        ids = tokenizer.encode("<R>" + context, to_tensor=False)
        assert len(ids) <= model.max_len
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[:, -1]
        torch.testing.assert_close(got[position], place_marginals(logits, table)[0, 0], atol=1e-6, rtol=1e-4)


def test_long_sequences_use_overlapping_windows(tiny, tokenizer):
    """200 bp are 67 tokens, more than max_len: the result is from the first window that contains the position."""
    model = tiny.model()
    bases = "ACGTTGCAAC" * 20
    overlap = 10
    got = base_probabilities(model, tokenizer, bases, overlap=overlap)
    room = model.max_len - 1
    last = len(bases) - 1 - (len(bases) - 1) % 3  # phase 0
    kmers = last // 3
    start = 0
    while start + room < kmers:
        start = start + room - overlap
    ids = tokenizer.encode("<R>" + bases[3 * start : last], to_tensor=False)
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[:, -1]
    torch.testing.assert_close(
        got[last], place_marginals(logits, KmerTable(tokenizer))[0, 0], atol=1e-6, rtol=1e-4
    )


def test_substitutions_compare_two_bases(tiny, tokenizer):
    model, bases = tiny.model(), "ACGTTGCANACC"
    p = base_probabilities(model, tokenizer, bases)
    got = substitution_scores(model, tokenizer, bases, [(4, "A"), (0, "G"), (4, "T")])
    assert got[0] == pytest.approx(float((p[4, 0] / p[4, 3]).log()), abs=1e-5)
    assert got[1] == pytest.approx(float((p[0, 2] / p[0, 0]).log()), abs=1e-5)
    assert got[2] == 0.0


@pytest.mark.parametrize(
    ("substitution", "message"),
    [((12, "A"), "position 12"), ((0, "N"), "'N' at 0"), ((8, "A"), "has N at 8"), ((1, "AC"), "'AC' at 1")],
)
def test_wrong_substitutions_are_named(tiny, tokenizer, substitution, message):
    with pytest.raises(ValueError, match=message):
        substitution_scores(tiny.model(), tokenizer, "ACGTTGCANACC", [substitution])


def test_a_prefix_is_needed(tiny, tokenizer):
    with pytest.raises(ValueError, match="has no token"):
        base_probabilities(tiny.model(), tokenizer, "ACG", prefix="")
