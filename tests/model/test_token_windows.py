"""Token windows of text and of ranges of a packed genome: the same ids, vectors and scores, bit for bit."""

import numpy as np
import pytest
import torch

from dnagpt_fast import Genome, KmerTokenizer
from dnagpt_fast.model.embed import embed
from dnagpt_fast.model.score import score
from dnagpt_fast.model.token_windows import strands
from dnagpt_fast.packed import PackedRange
from dnagpt_fast.vocab import RESERVED, reverse_complement
from tests.genome.synthetic import packed_genome, random_letters
from tests.tiny import load_tiny


@pytest.fixture
def genome(tmp_path):
    """Two contigs with runs of N, N at both ends, soft-masked runs."""
    rng = np.random.default_rng(3)
    contigs = []
    for length in (700, 61):
        letters = "N" + random_letters(rng, length - 2, n_runs=9, longest_run=8) + "N"
        contigs.append(letters[:20] + letters[20:45].lower() + letters[45:])
    path = tmp_path / "x.fa"
    path.write_text("".join(f">c{i}\n{letters}\n" for i, letters in enumerate(contigs)))
    with Genome.open(path) as opened:
        yield opened


def ranges(genome, count=30):
    """(name, start_bp, end_bp) of every length 1..14 and of longer ones, at both ends of the contigs too."""
    rng = np.random.default_rng(5)
    yield "c0", 0, 700
    yield "c1", 0, 61
    for length in range(1, 15):
        yield "c1", 61 - length, 61
        yield "c1", 0, length
    for _ in range(count):
        start, end = np.sort(rng.choice(701, 2, replace=False)).tolist()
        yield "c0", start, end


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("reserved", [RESERVED, ["P", "R"], [*RESERVED, "extra"]])
def test_a_range_gives_the_ids_of_its_text(genome, k, dynamic, reserved):
    tokenizer = KmerTokenizer(k, reserved, dynamic)
    for name, start, end in ranges(genome):
        text = genome.sequence(name, start, end, soft_mask=True)
        if end - start < k and not dynamic:
            for source in (text, genome.range(name, start, end)):
                with pytest.raises(ValueError, match=f"{end - start} bp"):
                    list(strands(tokenizer, source))
            continue
        pairs = zip(
            strands(tokenizer, text, both=True),
            strands(tokenizer, genome.range(name, start, end), both=True),
            strict=True,
        )
        for of_text, packed in pairs:
            n = len(of_text)
            assert (len(packed), packed.length_bp) == (n, of_text.length_bp)
            assert np.array_equal(packed.ids(0, n), of_text.ids(0, n))
            assert np.array_equal(packed.ids(n // 3, n - 1), of_text.ids(n // 3, n - 1))


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("k", [1, 2, 6])
@pytest.mark.parametrize("lengths", ["all", "equal", "equal with tails", "shorter than k", "none"])
def test_ranges_are_encoded_together_as_one_by_one(genome, k, dynamic, lengths):
    tokenizer = KmerTokenizer(k, [*RESERVED, "extra"], dynamic)
    same = {"equal": 5 * k, "equal with tails": 5 * k + k - 1, "shorter than k": max(k - 1, 1)}
    places = [(name, start, end) for name, start, end in ranges(genome) if lengths != "none"]
    if lengths in same:
        places = [("c0", start, start + same[lengths]) for start in (0, 17, 300)]
    some = [genome.range(*place, strand="+-"[i % 2]) for i, place in enumerate(places)]
    fields = ("contig", "start_bp", "end_bp", "reverse")
    contig, start, end, reverse = (
        np.array([getattr(one, field) for one in some], np.int64) for field in fields
    )
    together = tokenizer.encode_ranges(genome.arrays, contig, start, end - start, reverse)
    assert together.dtype == torch.int64
    one_by_one = []
    for (name, first, last), one in zip(places, some, strict=True):
        text = genome.sequence(name, first, last)
        text = reverse_complement(text) if one.reverse else text
        usable = len(text) if dynamic else len(text) // k * k
        one_by_one += tokenizer.encode(text[:usable], to_tensor=False)
    assert together.tolist() == one_by_one


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("both_strands", [True, False])
def test_vectors_and_scores_of_a_genome_are_those_of_its_text(genome, dynamic, both_strands):
    model, tokenizer = load_tiny("tiny_bias").model(), KmerTokenizer(3, dynamic_kmer=dynamic)
    places = [place for place in ranges(genome, 12) if place[2] - place[1] >= 3]
    texts = [genome.sequence(*place, soft_mask=True) for place in places]
    packed = [genome.range(*place) for place in places]
    for ask in (embed, score):
        of_text = list(ask(model, tokenizer, texts, both_strands=both_strands, max_tokens=200))
        of_range = list(ask(model, tokenizer, packed, both_strands=both_strands, max_tokens=200))
        assert all(np.array_equal(a, b) for a, b in zip(of_text, of_range, strict=True))
    backward = [genome.range(*place, strand="-") for place in places]
    forward = [place.reverse_complement() for place in backward]
    assert forward == packed
    assert list(score(model, tokenizer, backward)) != list(score(model, tokenizer, packed))


def test_ranges_that_cannot_be_used_are_named(genome):
    tokenizer = KmerTokenizer(3)
    with pytest.raises(ValueError, match="empty"):
        next(strands(tokenizer, genome.range("c0", 5, 5)))
    with pytest.raises(ValueError, match=r"\[5, 701\) of 'c0'"):
        genome.range("c0", 5, 701)
    with pytest.raises(ValueError, match=r"strand '\.'"):
        genome.range("c0", strand=".")
    with pytest.raises(ValueError, match="no contig 'c7'"):
        genome.range("c7")
    with pytest.raises(IndexError):
        tokenizer.encode_packed(PackedRange(packed_genome(["ACGT"]), 0, 2, 9))


def test_parts_count_in_the_direction_of_the_range():
    whole = PackedRange(packed_genome(["ACGTTGCAAC"]), 0, 2, 9)
    assert (whole.part(1, 3).start_bp, whole.part(1, 3).end_bp) == (3, 5)
    other = whole.reverse_complement()
    assert (other.part(1, 3).start_bp, other.part(1, 3).end_bp) == (6, 8)
    assert len(other) == len(whole) == 7
