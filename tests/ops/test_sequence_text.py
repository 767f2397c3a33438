"""sequence_text returns the text from which a genome was packed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnagpt_fast.ops import dispatch, sequence_text
from tests.ops.packed_genomes import packed_genome


@pytest.mark.parametrize("implementation", dispatch.IMPLEMENTATIONS["sequence_text"])
@given(texts=st.lists(st.text("ACGTN", max_size=90), min_size=1, max_size=3), data=st.data())
def test_the_text_comes_back(implementation, texts, data):
    contig = data.draw(st.integers(0, len(texts) - 1))
    start_bp = data.draw(st.integers(0, len(texts[contig])))
    end_bp = data.draw(st.integers(start_bp, len(texts[contig])))
    with dispatch.using(sequence_text=implementation):
        letters = sequence_text(packed_genome(*texts), contig, start_bp, end_bp)
    assert letters.tobytes().decode() == texts[contig][start_bp:end_bp]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((1, 0, 1), IndexError, "contig 1"),
        ((0, 0, 5), IndexError, "leave contig 0 of 4 bp"),
        ((0, 3, 2), ValueError, "length -1 bp"),
    ],
)
def test_bad_ranges(arguments, error, words):
    with pytest.raises(error, match=words):
        sequence_text(packed_genome("ACGT"), *arguments)
