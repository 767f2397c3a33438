"""Probabilities along a contig: against one pass for each base, and independent of the range."""

import numpy as np
import pytest
import torch

from dnagpt_fast import KmerTokenizer
from dnagpt_fast.model.base_tracks import BaseTracks
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.marginals import KmerTable
from dnagpt_fast.packed import PackedRange
from dnagpt_fast.vocab import reverse_complement
from tests.genome.synthetic import packed_genome, random_letters
from tests.tiny import NAMES, load_tiny

LETTERS = random_letters(np.random.default_rng(4), 311, n_runs=3, longest_run=5)


@pytest.fixture(params=NAMES)
def tracks(request):
    return BaseTracks(Inference(load_tiny(request.param).model()), KmerTokenizer(3), max_tokens=300)


@pytest.fixture
def contig():
    return PackedRange(packed_genome(["ACGT", LETTERS]), 1, 0, len(LETTERS))


def directly_computed(tracks, letters, position):
    """P of the base at a position from one pass over its window, which is cut here."""
    tokenizer, k = tracks.tokenizer, 3
    phase, number = position % k, position // k
    begin = max(number // tracks.stride * tracks.stride - tracks.overlap, 0)
    ids = tokenizer.encode("<R>" + letters[phase + k * begin : phase + k * number])
    assert len(ids) <= tracks.inference.model.max_len
    with torch.no_grad():
        return KmerTable(tokenizer).first_base(tracks.inference.model(ids[None])[0, -1:])[0]


def test_every_base_is_predicted_from_its_window(tracks, contig):
    found = tracks.strand(contig, 0, 311)
    assert found.shape == (311, 4)
    torch.testing.assert_close(found.sum(1), torch.ones(311))
    for position in [*range(8), *range(100, 150, 7), 309, 310]:
        torch.testing.assert_close(
            found[position], directly_computed(tracks, LETTERS, position), atol=1e-6, rtol=1e-4
        )
    longest = max(len(w.ids) for phase in range(3) for w in tracks._windows(contig, 0, 311, phase))
    assert longest == tracks.inference.model.max_len


def test_a_base_has_the_same_values_in_every_range_and_batch(tracks, contig):
    whole = tracks.strand(contig, 0, 311)
    for start, end in ((0, 1), (1, 2), (7, 96), (95, 311), (310, 311), (50, 50)):
        assert tracks.strand(contig, start, end).equal(whole[start:end])
    small = BaseTracks(tracks.inference, tracks.tokenizer, max_tokens=40)
    assert small.strand(contig, 90, 200).equal(whole[90:200])


def test_both_strands(tracks, contig):
    both = tracks.both_strands(contig, 20, 90)
    turned = PackedRange(packed_genome([reverse_complement(LETTERS)]), 0, 0, 311)
    other = tracks.strand(turned, 311 - 90, 311 - 20).flip(0, 1)
    assert both.equal((tracks.strand(contig, 20, 90) + other) / 2)
    assert tracks.both_strands(turned, 311 - 90, 311 - 20).equal(both.flip(0, 1))


def test_overlap_out_of_range_is_refused(tracks):
    with pytest.raises(ValueError, match="overlap = 400"):
        BaseTracks(tracks.inference, tracks.tokenizer, overlap=400)
